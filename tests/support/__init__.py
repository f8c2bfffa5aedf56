"""What the tests share: real server processes and a few ways of talking to them."""
