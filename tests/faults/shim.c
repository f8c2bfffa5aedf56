/* Preloaded into a server under test: makes one system call fail, as the test's plan says. No call is cut short: the kernel does
   that only when there is no more to read, or no more room, and an edge-triggered poller relies on it.
   The plan is a file both map. Everything it does not name goes to the C library. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
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

/* Memory. Counted is what the compiled modules ask for: OWN, themselves; FOREIGN, OpenSSL and zlib for them; PYTHON, the interpreter,
   for them or for what they call. Who asks shows on the stack; it is only looked at while a plan is about memory. */

enum { OWN = 8, FOREIGN, PYTHON };
enum { DEEPEST = 200 };

static __thread int looking;

static int is_ours(const void *address) {
    Dl_info found;
    return dladdr(address, &found) && found.dli_fname && strstr(found.dli_fname, "/duckfast/_");
}

static int is_theirs(const void *address) {
    Dl_info found;
    if (!dladdr(address, &found) || !found.dli_fname) return 0;
    return strstr(found.dli_fname, "libssl") || strstr(found.dli_fname, "libcrypto") || strstr(found.dli_fname, "libz");
}

static int is_for_us(void) {
    void *frames[DEEPEST];
    int number = backtrace(frames, DEEPEST);
    while (number-- > 0) if (is_ours(frames[number])) return 1;
    return 0;
}

/* Whether this allocation is to fail. */
static int starve(int python, const void *caller) {
    int call = plan ? plan->call : NOTHING, hit = 0;
    if (call < OWN || (call == PYTHON) != python || looking || plan->struck >= plan->times) return 0;
    looking = 1;
    if (call == OWN ? is_ours(caller) : (call == PYTHON || is_theirs(caller)) && is_for_us()) hit = strike(call);
    looking = 0;
    return hit;
}

#define CALLER __builtin_return_address(0)

void *malloc(size_t size) {
    REAL(malloc);
    return starve(0, CALLER) ? NULL : real(size);
}
void *calloc(size_t number, size_t size) {
    REAL(calloc);
    return starve(0, CALLER) ? NULL : real(number, size);
}
void *realloc(void *block, size_t size) {
    REAL(realloc);
    return starve(0, CALLER) ? NULL : real(block, size);
}

/* PyMemAllocatorEx of pymem.h, and a hook around each of Python's three. */
struct allocator {
    void *context;
    void *(*malloc)(void *, size_t);
    void *(*calloc)(void *, size_t, size_t);
    void *(*realloc)(void *, void *, size_t);
    void (*free)(void *, void *);
};
static struct allocator python[3];

static void *python_malloc(void *of, size_t size) {
    struct allocator *real = of;
    return starve(1, NULL) ? NULL : real->malloc(real->context, size);
}
static void *python_calloc(void *of, size_t number, size_t size) {
    struct allocator *real = of;
    return starve(1, NULL) ? NULL : real->calloc(real->context, number, size);
}
static void *python_realloc(void *of, void *block, size_t size) {
    struct allocator *real = of;
    return starve(1, NULL) ? NULL : real->realloc(real->context, block, size);
}
static void python_free(void *of, void *block) {
    struct allocator *real = of;
    real->free(real->context, block);
}

/* For the application to call, with the GIL: from now on Python's allocations can fail as well. */
void hook_python(void) {
    void (*get)(int, struct allocator *) = (void (*)(int, struct allocator *))dlsym(RTLD_DEFAULT, "PyMem_GetAllocator");
    void (*set)(int, struct allocator *) = (void (*)(int, struct allocator *))dlsym(RTLD_DEFAULT, "PyMem_SetAllocator");
    void *frames[2];
    int domain;
    backtrace(frames, 2);   /* its first call loads a library */
    for (domain = 0; domain < 3; domain++) {
        struct allocator ours = {&python[domain], python_malloc, python_calloc, python_realloc, python_free};
        get(domain, &python[domain]);
        set(domain, &ours);
    }
}
