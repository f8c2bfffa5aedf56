"""epoll and kqueue for compiled code; nothing here is for Python."""
