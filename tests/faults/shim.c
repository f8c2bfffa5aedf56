/* Preloaded into a server under test: makes one system call fail, as the test's plan says. No call is cut short: the kernel does
   that only when there is no more to read, or no more room, and an edge-triggered poller relies on it.
   The plan is a file both map. Everything it does not name goes to the C library. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { NOTHING, RECV, SEND, SENDMSG, SENDFILE, ACCEPT, WATCH, WAIT };

static volatile struct plan {
    int32_t call;      /* which one */
    int32_t error;     /* its errno */
    int32_t left;      /* how many of these calls pass before */
    int32_t struck;    /* how often it has failed */
    int32_t times;     /* how often it shall */
} *plan;

__attribute__((constructor)) static void open_plan(void) {
    const char *path = getenv("FAULT_PLAN");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *place;
    if (fd < 0) return;
    place = mmap(NULL, sizeof(struct plan), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (place != MAP_FAILED) plan = place;
}

/* 0: let it pass; else its error. */
static int strike(int call) {
    if (plan == NULL || plan->call != call || plan->struck >= plan->times) return 0;
    if (__sync_fetch_and_sub(&plan->left, 1) > 0) return 0;
    __sync_fetch_and_add(&plan->struck, 1);
    return plan->error;
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)
#define FAIL(call) do { int error = strike(call); if (error) { errno = error; return -1; } } while (0)

static int is_socket(int fd) {
    int type;
    socklen_t size = sizeof type;
    int kept = errno, result = getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size);
    errno = kept;
    return result == 0;
}

ssize_t recv(int fd, void *data, size_t size, int flags) {
    REAL(recv); FAIL(RECV);
    return real(fd, data, size, flags);
}
ssize_t send(int fd, const void *data, size_t size, int flags) {
    REAL(send); FAIL(SEND);
    return real(fd, data, size, flags);
}
ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    REAL(sendmsg); FAIL(SENDMSG);
    return real(fd, message, flags);
}
ssize_t sendfile64(int out, int in, off64_t *offset, size_t size) {
    REAL(sendfile64); FAIL(SENDFILE);
    return real(out, in, offset, size);
}
int accept4(int fd, struct sockaddr *address, socklen_t *length, int flags) {
    REAL(accept4); FAIL(ACCEPT);
    return real(fd, address, length, flags);
}
int epoll_ctl(int poller, int operation, int fd, struct epoll_event *event) {
    REAL(epoll_ctl);
    if (operation == EPOLL_CTL_ADD && is_socket(fd)) FAIL(WATCH);
    return real(poller, operation, fd, event);
}
int epoll_wait(int poller, struct epoll_event *events, int most, int timeout) {
    REAL(epoll_wait); FAIL(WAIT);
    return real(poller, events, most, timeout);
}
