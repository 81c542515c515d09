/* What can go wrong with files, at a chosen operation of a chosen folder.
 *
 * Preloaded into a process, it numbers the operations that change files below
 * FAULT_ROOT, over all processes that share the counter in the file FAULT_COUNTER,
 * and makes number FAULT_AT go wrong as FAULT_KIND says:
 *
 *   kill    the process is killed before it
 *   power   so are all processes of its group
 *   eio     the operation fails once with EIO
 *   enospc  it and all later writes fail with ENOSPC: the disk is full
 *   short   a write writes half of what it was given
 *   clock   nothing fails; the clock is FAULT_AT seconds slow
 *
 * Log and lock files (events.jsonl, lock, manifest.lock) carry no result and are
 * left alone. Everything else goes to the C library.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static const char *root, *kind;
static unsigned long at;
static _Atomic unsigned long *counter;

__attribute__((constructor)) static void start(void) {
    const char *file = getenv("FAULT_COUNTER"), *number = getenv("FAULT_AT");
    root = getenv("FAULT_ROOT");
    kind = getenv("FAULT_KIND");
    if (!file || !number || !root || !kind) return;
    at = strtoul(number, NULL, 10);
    int fd = REAL(open)(file, O_RDWR);
    if (fd < 0) abort();
    counter = mmap(NULL, sizeof *counter, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (counter == MAP_FAILED) abort();
    REAL(close)(fd);
}

/* Whether a path is below the folder and carries a result. */
static int matters(const char *path) {
    if (!counter || strncmp(path, root, strlen(root))) return 0;
    const char *name = strrchr(path, '/');
    name = name ? name + 1 : path;
    return strcmp(name, "events.jsonl") && strcmp(name, "lock") && strcmp(name, "manifest.lock");
}

static int path_matters(int dir, const char *path) {
    char whole[PATH_MAX * 2], link[64];
    if (!counter || !path) return 0;
    if (path[0] == '/') return matters(path);
    if (dir == AT_FDCWD) {
        if (!getcwd(whole, PATH_MAX)) return 0;
    } else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
        ssize_t n = readlink(link, whole, PATH_MAX);
        if (n < 0) return 0;
        whole[n] = 0;
    }
    size_t length = strlen(whole);
    snprintf(whole + length, sizeof whole - length, "/%s", path);
    return matters(whole);
}

static int fd_matters(int fd) {
    char link[64], path[PATH_MAX];
    if (!counter) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return matters(path);
}

static int is(const char *name) { return !strcmp(kind, name); }

/* Counts an operation; 1 if it has to fail, with errno set. */
static int fails(int is_write) {
    unsigned long number = atomic_fetch_add(counter, 1) + 1;
    if (is("enospc") && is_write && number >= at) {
        errno = ENOSPC;
        return 1;
    }
    if (number != at || is("clock")) return 0;
    if (is("kill")) raise(SIGKILL);
    if (is("power")) kill(0, SIGKILL);
    if (is("eio")) {
        errno = EIO;
        return 1;
    }
    return 0;
}

static int halves(void) { return is("short") && atomic_load(counter) == at; }

ssize_t write(int fd, const void *bytes, size_t count) {
    if (fd_matters(fd)) {
        if (fails(1)) return -1;
        if (halves() && count > 1) count /= 2;
    }
    return REAL(write)(fd, bytes, count);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    if (fd_matters(fd)) {
        if (fails(1)) return -1;
        if (halves() && count > 1) count /= 2;
    }
    return REAL(writev)(fd, parts, count);
}

int fsync(int fd) { return fd_matters(fd) && fails(0) ? -1 : REAL(fsync)(fd); }

int fdatasync(int fd) { return fd_matters(fd) && fails(0) ? -1 : REAL(fdatasync)(fd); }

int rename(const char *from, const char *to) {
    return path_matters(AT_FDCWD, to) && fails(0) ? -1 : REAL(rename)(from, to);
}

int renameat(int from_dir, const char *from, int to_dir, const char *to) {
    return path_matters(to_dir, to) && fails(0) ? -1 : REAL(renameat)(from_dir, from, to_dir, to);
}

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
    if (path_matters(to_dir, to) && fails(0)) return -1;
    return REAL(renameat2)(from_dir, from, to_dir, to, flags);
}

int unlink(const char *path) {
    return path_matters(AT_FDCWD, path) && fails(0) ? -1 : REAL(unlink)(path);
}

int unlinkat(int dir, const char *path, int flags) {
    return path_matters(dir, path) && fails(0) ? -1 : REAL(unlinkat)(dir, path, flags);
}

int mkdir(const char *path, mode_t mode) {
    return path_matters(AT_FDCWD, path) && fails(1) ? -1 : REAL(mkdir)(path, mode);
}

int rmdir(const char *path) {
    return path_matters(AT_FDCWD, path) && fails(0) ? -1 : REAL(rmdir)(path);
}

static int creates(int dir, const char *path, int flags) {
    return (flags & O_CREAT) && path_matters(dir, path);
}

#define OPEN(name, dir, ...)                                    \
    mode_t mode = 0;                                            \
    if (flags & (O_CREAT | __O_TMPFILE)) {                      \
        va_list rest;                                           \
        va_start(rest, flags);                                  \
        mode = va_arg(rest, mode_t);                            \
        va_end(rest);                                           \
    }                                                           \
    if (creates(dir, path, flags) && fails(1)) return -1;       \
    return REAL(name)(__VA_ARGS__, mode);

#include <stdarg.h>

int open(const char *path, int flags, ...) { OPEN(open, AT_FDCWD, path, flags) }

int open64(const char *path, int flags, ...) { OPEN(open64, AT_FDCWD, path, flags) }

int openat(int dir, const char *path, int flags, ...) { OPEN(openat, dir, dir, path, flags) }

int openat64(int dir, const char *path, int flags, ...) { OPEN(openat64, dir, dir, path, flags) }

int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = REAL(clock_gettime)(clock, time);
    if (!result && counter && clock == CLOCK_REALTIME && is("clock")) time->tv_sec -= at;
    return result;
}
