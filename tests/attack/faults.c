/* Loaded before libc: counts what changes files below FAULT_ROOT, writes it down in FAULT_LOG, and
 * at number FAULT_AT kills the process, has that call fail with FAULT_ERRNO, or takes away the file
 * system, as a power cut does (FAULT_AWAY). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static const char *root, *fail, *away;
static long at = -1, count;
static int record = -1;

__attribute__((constructor)) static void begin(void) {
    root = getenv("FAULT_ROOT");
    fail = getenv("FAULT_ERRNO");
    away = getenv("FAULT_AWAY");
    if (getenv("FAULT_AT")) at = atol(getenv("FAULT_AT"));
    if (root && getenv("FAULT_LOG"))
        record = syscall(SYS_openat, AT_FDCWD, getenv("FAULT_LOG"),
                         O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

/* The path below root, or NULL. */
static const char *below(int folder, const char *path, char *buffer) {
    char base[4096] = "";
    if (!root) return NULL;
    if (path && path[0] == '/') {
        snprintf(buffer, 4096, "%s", path);
    } else {
        char link[64];
        if (folder == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
        else snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        ssize_t length = readlink(link, base, sizeof base - 1);
        if (length < 0) return NULL;
        base[length] = 0;
        snprintf(buffer, 4096, path ? "%.2000s/%.2000s" : "%.2000s", base, path);
    }
    size_t length = strlen(root);
    if (strncmp(buffer, root, length) || (buffer[length] && buffer[length] != '/')) return NULL;
    return buffer + length;
}

/* Shut down the file system of root without writing its log, as ext4 and xfs can. */
static void take_away(void) {
    unsigned without_log = 2;
    int folder = syscall(SYS_openat, AT_FDCWD, root, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (syscall(SYS_ioctl, folder, _IOR('X', 125, unsigned), &without_log))
        syscall(SYS_kill, getpid(), SIGABRT);
    syscall(SYS_close, folder);
}

static int due(void) {
    if (count++ != at) return 0;
    if (away) {
        take_away();
        return 0;
    }
    if (!fail) syscall(SYS_kill, getpid(), SIGKILL);
    errno = atoi(fail);
    return 1;
}

static void note(const char *what, const char *one, const char *two, long offset, const void *data,
                 long length) {
    char line[8400];
    int kept = errno;
    if (record < 0) return;
    int size = snprintf(line, sizeof line, "%s\t%s\t%s\t%ld\t%ld\n", what, one, two, offset,
                        data ? length : 0);
    syscall(SYS_write, record, line, size);
    if (data) syscall(SYS_write, record, data, length);
    errno = kept;
}

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)
/* One call: below root, it is counted, made and written down, one thread at a time. */
#define CALL(type, where, call, noted) \
    do { \
        const char *path_ = (where); \
        if (!path_) return (call); \
        pthread_mutex_lock(&turn); \
        type result_ = -1; \
        if (!due()) { \
            result_ = (call); \
            if (result_ >= 0) noted; \
        } \
        pthread_mutex_unlock(&turn); \
        return result_; \
    } while (0)

static int opened(int folder, const char *path, int flags, int mode,
                  int (*real)(const char *, int, ...)) {
    char buffer[4200];
    const char *name = flags & (O_CREAT | O_TRUNC) ? below(folder, path, buffer) : NULL;
    CALL(int, name, real ? real(path, flags, mode) : syscall(SYS_openat, folder, path, flags, mode),
         note(flags & O_TRUNC ? "create-empty" : "create", name, "", 0, NULL, 0));
}
#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        va_list more; \
        va_start(more, flags); \
        int mode = va_arg(more, int); \
        va_end(more); \
        REAL(int, name, const char *, int, ...); \
        return opened(AT_FDCWD, path, flags, mode, real); \
    }
OPEN(open)
OPEN(open64)

ssize_t write(int fd, const void *data, size_t length) {
    char buffer[4200];
    REAL(ssize_t, write, int, const void *, size_t);
    const char *path = below(fd, NULL, buffer);
    long offset = 0;
    struct stat status;
    if (path && !fstat(fd, &status))
        offset = fcntl(fd, F_GETFL) & O_APPEND ? status.st_size : lseek(fd, 0, SEEK_CUR);
    CALL(ssize_t, path, real(fd, data, length), note("write", path, "", offset, data, result_));
}
#define PWRITE(name) \
    ssize_t name(int fd, const void *data, size_t length, off_t offset) { \
        char buffer[4200]; \
        REAL(ssize_t, name, int, const void *, size_t, off_t); \
        const char *path = below(fd, NULL, buffer); \
        CALL(ssize_t, path, real(fd, data, length, offset), \
             note("write", path, "", offset, data, result_)); \
    }
PWRITE(pwrite)
PWRITE(pwrite64)
#define TRUNCATE(name) \
    int name(int fd, off_t length) { \
        char buffer[4200]; \
        REAL(int, name, int, off_t); \
        const char *path = below(fd, NULL, buffer); \
        CALL(int, path, real(fd, length), note("truncate", path, "", length, NULL, 0)); \
    }
TRUNCATE(ftruncate)
TRUNCATE(ftruncate64)
#define SYNC(name) \
    int name(int fd) { \
        char buffer[4200]; \
        REAL(int, name, int); \
        const char *path = below(fd, NULL, buffer); \
        CALL(int, path, real(fd), note("sync", path, "", 0, NULL, 0)); \
    }
SYNC(fsync)
SYNC(fdatasync)
int rename(const char *from, const char *to) {
    char one[4200], two[4200];
    REAL(int, rename, const char *, const char *);
    const char *source = below(AT_FDCWD, from, one), *target = below(AT_FDCWD, to, two);
    CALL(int, source && target ? source : NULL, real(from, to),
         note("rename", source, target, 0, NULL, 0));
}
int unlink(const char *path) {
    char buffer[4200];
    REAL(int, unlink, const char *);
    const char *name = below(AT_FDCWD, path, buffer);
    CALL(int, name, real(path), note("unlink", name, "", 0, NULL, 0));
}
int unlinkat(int folder, const char *path, int flags) {
    char buffer[4200];
    REAL(int, unlinkat, int, const char *, int);
    const char *name = below(folder, path, buffer);
    CALL(int, name, real(folder, path, flags), note("unlink", name, "", 0, NULL, 0));
}
int rmdir(const char *path) {
    char buffer[4200];
    REAL(int, rmdir, const char *);
    const char *name = below(AT_FDCWD, path, buffer);
    CALL(int, name, real(path), note("unlink", name, "", 0, NULL, 0));
}
int mkdir(const char *path, mode_t mode) {
    char buffer[4200];
    REAL(int, mkdir, const char *, mode_t);
    const char *name = below(AT_FDCWD, path, buffer);
    CALL(int, name, real(path, mode), note("mkdir", name, "", 0, NULL, 0));
}
