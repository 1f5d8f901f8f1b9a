/*
 * Write down, in order, what a process does to the files of one directory and to the connections that it accepted.
 *
 *     LD_PRELOAD=powerlog.so POWER_DIR=/watched POWER_LOG=/elsewhere/log command
 *
 * The log says what a disk knows at each moment; disk.py makes of a beginning of it what a power cut would have left.
 *
 * Order. An operation on a file is carried out and then logged, both under one lock. An fsync is logged where it
 * begins and, once it returned 0, where it ended: what was logged before its beginning is on disk from its end on.
 * What is sent is logged before it is sent: an answer must rest on what is on disk by then.
 *
 * Failures. While there is a file at POWER_FAIL the next fsync of a log of SQLite's (-wal) takes it away and fails with
 * EIO. As Linux has it, the pages that it was to write count as written from then on, and never are; and each other
 * descriptor of that file that is open by then is told too, once, by an fsync that otherwise does its work.
 *
 * Not watched: descriptors that were duplicated, mappings (SQLite maps only its -shm file, which a power cut may take),
 * paths relative to a directory's descriptor, and what libc's own streams write.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { MAX_DESCRIPTORS = 65536, LOG_DESCRIPTOR = 1000 };

enum operation {
    CREATE = 'C',   /* file: inode; payload: path */
    WRITE = 'W',    /* file: inode; at: offset; payload: data */
    TRUNCATE = 'T', /* file: inode; at: size */
    BEGIN = 'B',    /* an fsync of the inode `file` by `thread` begins */
    END = 'E',      /* its work was done */
    FAIL = 'F',     /* file: inode; an fsync failed, and what it was to write is never written */
    UNLINK = 'U',   /* payload: path */
    RENAME = 'R',   /* payload: old path, zero, new path */
    MKDIR = 'D',    /* file: inode; payload: path */
    RMDIR = 'X',    /* payload: path */
    ACCEPT = 'A',   /* file: the connection's descriptor */
    RECEIVE = 'I',  /* file: the connection's descriptor; payload: data */
    SEND = 'O',     /* the same */
};

struct record {
    uint32_t operation;
    uint32_t thread;
    uint64_t file;
    uint64_t at;
    uint64_t size;
};

enum kind { OTHER = 0, WATCHED, CONNECTION };

static struct {
    enum kind kind;
    int owes_error;
    uint64_t inode;
} descriptors[MAX_DESCRIPTORS];

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *watched, *failing;
static size_t watched_length;
static int log_descriptor = -1;

#define REAL(name) ((__typeof__(&name))real(#name))

static void *real(const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);
    if (found == NULL)
        abort();
    return found;
}

__attribute__((constructor)) static void start(void)
{
    const char *path = getenv("POWER_LOG");
    watched = getenv("POWER_DIR");
    if (path == NULL || watched == NULL)
        return;
    watched_length = strlen(watched);
    failing = getenv("POWER_FAIL");
    int opened = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    log_descriptor = fcntl(opened, F_DUPFD_CLOEXEC, LOG_DESCRIPTOR);
    if (log_descriptor < 0)
        abort();
    syscall(SYS_close, opened);
}

static void put(enum operation operation, uint64_t file, uint64_t at, const void *data, size_t size)
{
    struct record record = {operation, (uint32_t)syscall(SYS_gettid), file, at, size};
    struct iovec parts[] = {{&record, sizeof record}, {(void *)data, size}};
    int before = errno;
    if (syscall(SYS_writev, log_descriptor, parts, 2) != (long)(sizeof record + size))
        abort(); /* a log with a hole would show losses that there were not */
    errno = before;
}

static void put_locked(enum operation operation, uint64_t file, const void *data, size_t size)
{
    pthread_mutex_lock(&lock);
    put(operation, file, 0, data, size);
    pthread_mutex_unlock(&lock);
}

static enum kind kind_of(int descriptor)
{
    if (log_descriptor < 0 || descriptor < 0 || descriptor >= MAX_DESCRIPTORS)
        return OTHER;
    return descriptors[descriptor].kind;
}

static void set_kind(int descriptor, enum kind kind, uint64_t inode)
{
    if (descriptor >= 0 && descriptor < MAX_DESCRIPTORS) {
        descriptors[descriptor].kind = kind;
        descriptors[descriptor].owes_error = 0;
        descriptors[descriptor].inode = inode;
    }
}

/* Return the path inside the watched directory, NULL where it lies elsewhere. */
static const char *inside(const char *path, char *place)
{
    if (log_descriptor < 0)
        return NULL;
    if (path[0] != '/') {
        if (getcwd(place, PATH_MAX) == NULL || strlen(place) + strlen(path) + 2 > PATH_MAX)
            return NULL;
        strcat(strcat(place, "/"), path);
        path = place;
    }
    if (strncmp(path, watched, watched_length) != 0)
        return NULL;
    path += watched_length;
    return *path == '/' || *path == '\0' ? path : NULL;
}

static uint64_t inode_of(int descriptor)
{
    struct stat found;
    return fstat(descriptor, &found) == 0 ? found.st_ino : 0;
}

/* opening and closing */

static int opened(int (*call)(int, const char *, int, ...), int directory, const char *path, int flags, mode_t mode)
{
    char place[PATH_MAX];
    const char *name = directory == AT_FDCWD || path[0] == '/' ? inside(path, place) : NULL;
    if (name == NULL) {
        int descriptor = call(directory, path, flags, mode);
        set_kind(descriptor, OTHER, 0);
        return descriptor;
    }
    pthread_mutex_lock(&lock);
    struct stat before;
    int existed = stat(path, &before) == 0;
    int descriptor = call(directory, path, flags, mode);
    if (descriptor >= 0) {
        set_kind(descriptor, WATCHED, inode_of(descriptor));
        if (!existed)
            put(CREATE, descriptors[descriptor].inode, 0, name, strlen(name));
        else if (flags & O_TRUNC)
            put(TRUNCATE, descriptors[descriptor].inode, 0, NULL, 0);
    }
    pthread_mutex_unlock(&lock);
    return descriptor;
}

#define MODE(flags, mode)                                                                                              \
    mode_t mode = 0;                                                                                                   \
    if ((flags) & (O_CREAT | __O_TMPFILE)) {                                                                           \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode = va_arg(rest, mode_t);                                                                                   \
        va_end(rest);                                                                                                  \
    }

#define OPEN(name)                                                                                                     \
    int name(const char *path, int flags, ...)                                                                         \
    {                                                                                                                  \
        MODE(flags, mode)                                                                                              \
        return opened(REAL(openat), AT_FDCWD, path, flags, mode);                                                      \
    }

#define OPENAT(name)                                                                                                   \
    int name(int directory, const char *path, int flags, ...)                                                          \
    {                                                                                                                  \
        MODE(flags, mode)                                                                                              \
        return opened(REAL(openat), directory, path, flags, mode);                                                     \
    }

OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

int close(int descriptor)
{
    set_kind(descriptor, OTHER, 0);
    return REAL(close)(descriptor);
}

/* writing */

static ssize_t written(int descriptor, ssize_t done, off_t at, const struct iovec *parts)
{
    /* In pieces: a log entry has one payload. */
    for (ssize_t rest = done; rest > 0; parts++) {
        size_t size = (size_t)rest < parts->iov_len ? (size_t)rest : parts->iov_len;
        put(WRITE, descriptors[descriptor].inode, (uint64_t)at, parts->iov_base, size);
        at += (off_t)size;
        rest -= (ssize_t)size;
    }
    return done;
}

static ssize_t write_here(int descriptor, const struct iovec *parts, int count)
{
    pthread_mutex_lock(&lock);
    ssize_t done = REAL(writev)(descriptor, parts, count);
    int before = errno;
    written(descriptor, done, lseek(descriptor, 0, SEEK_CUR) - done, parts);
    errno = before;
    pthread_mutex_unlock(&lock);
    return done;
}

static void sent(int descriptor, const struct iovec *parts, size_t count)
{
    for (size_t index = 0; index < count; index++)
        put_locked(SEND, (uint64_t)descriptor, parts[index].iov_base, parts[index].iov_len);
}

ssize_t write(int descriptor, const void *data, size_t size)
{
    struct iovec part = {(void *)data, size};
    if (kind_of(descriptor) == WATCHED)
        return write_here(descriptor, &part, 1);
    if (kind_of(descriptor) == CONNECTION)
        sent(descriptor, &part, 1);
    return REAL(write)(descriptor, data, size);
}

ssize_t writev(int descriptor, const struct iovec *parts, int count)
{
    if (kind_of(descriptor) == WATCHED)
        return write_here(descriptor, parts, count);
    if (kind_of(descriptor) == CONNECTION)
        sent(descriptor, parts, (size_t)count);
    return REAL(writev)(descriptor, parts, count);
}

static ssize_t write_at(int descriptor, const struct iovec *parts, int count, off_t at)
{
    if (kind_of(descriptor) != WATCHED)
        return REAL(pwritev)(descriptor, parts, count, at);
    pthread_mutex_lock(&lock);
    ssize_t done = written(descriptor, REAL(pwritev)(descriptor, parts, count, at), at, parts);
    pthread_mutex_unlock(&lock);
    return done;
}

#define PWRITE(name)                                                                                                   \
    ssize_t name(int descriptor, const void *data, size_t size, off_t at)                                              \
    {                                                                                                                  \
        struct iovec part = {(void *)data, size};                                                                      \
        return write_at(descriptor, &part, 1, at);                                                                     \
    }

#define PWRITEV(name)                                                                                                  \
    ssize_t name(int descriptor, const struct iovec *parts, int count, off_t at)                                       \
    {                                                                                                                  \
        return write_at(descriptor, parts, count, at);                                                                 \
    }

PWRITE(pwrite)
PWRITE(pwrite64)
PWRITEV(pwritev)
PWRITEV(pwritev64)

static int truncated(int descriptor, off_t size)
{
    if (kind_of(descriptor) != WATCHED)
        return REAL(ftruncate)(descriptor, size);
    pthread_mutex_lock(&lock);
    int result = REAL(ftruncate)(descriptor, size);
    if (result == 0)
        put(TRUNCATE, descriptors[descriptor].inode, (uint64_t)size, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int ftruncate(int descriptor, off_t size) { return truncated(descriptor, size); }
int ftruncate64(int descriptor, off_t size) { return truncated(descriptor, size); }

/* syncing */

static int is_log(int descriptor)
{
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path);
    return length > 4 && memcmp(path + length - 4, "-wal", 4) == 0;
}

/* Tell whether an fsync is to fail, and have it fail where it is. */
static int fails(int descriptor)
{
    if (failing == NULL || !is_log(descriptor) || syscall(SYS_unlinkat, AT_FDCWD, failing, 0) != 0)
        return 0;
    pthread_mutex_lock(&lock);
    put(FAIL, descriptors[descriptor].inode, 0, NULL, 0);
    for (int other = 0; other < MAX_DESCRIPTORS; other++)
        if (other != descriptor && descriptors[other].kind == WATCHED &&
            descriptors[other].inode == descriptors[descriptor].inode)
            descriptors[other].owes_error = 1;
    pthread_mutex_unlock(&lock);
    return 1;
}

static int synced(int (*call)(int), int descriptor)
{
    if (kind_of(descriptor) != WATCHED)
        return call(descriptor);
    if (fails(descriptor)) {
        errno = EIO;
        return -1;
    }
    uint64_t inode = descriptors[descriptor].inode;
    put_locked(BEGIN, inode, NULL, 0);
    int result = call(descriptor);
    if (result == 0)
        put_locked(END, inode, NULL, 0);
    if (result == 0 && descriptors[descriptor].owes_error) {
        descriptors[descriptor].owes_error = 0;
        errno = EIO;
        result = -1;
    }
    return result;
}

int fsync(int descriptor) { return synced(REAL(fsync), descriptor); }
int fdatasync(int descriptor) { return synced(REAL(fdatasync), descriptor); }

/* names */

int unlink(const char *path)
{
    char place[PATH_MAX];
    const char *name = inside(path, place);
    if (name == NULL)
        return REAL(unlink)(path);
    pthread_mutex_lock(&lock);
    int result = REAL(unlink)(path);
    if (result == 0)
        put(UNLINK, 0, 0, name, strlen(name));
    pthread_mutex_unlock(&lock);
    return result;
}

int rename(const char *from, const char *to)
{
    char from_place[PATH_MAX], to_place[PATH_MAX], both[2 * PATH_MAX];
    const char *old = inside(from, from_place), *new = inside(to, to_place);
    if (old == NULL || new == NULL)
        return REAL(rename)(from, to);
    pthread_mutex_lock(&lock);
    int result = REAL(rename)(from, to);
    if (result == 0) {
        size_t length = strlen(old) + 1;
        memcpy(both, old, length);
        memcpy(both + length, new, strlen(new));
        put(RENAME, 0, 0, both, length + strlen(new));
    }
    pthread_mutex_unlock(&lock);
    return result;
}

int mkdir(const char *path, mode_t mode)
{
    char place[PATH_MAX];
    const char *name = inside(path, place);
    if (name == NULL)
        return REAL(mkdir)(path, mode);
    pthread_mutex_lock(&lock);
    int result = REAL(mkdir)(path, mode);
    struct stat made;
    if (result == 0 && stat(path, &made) == 0)
        put(MKDIR, made.st_ino, 0, name, strlen(name));
    pthread_mutex_unlock(&lock);
    return result;
}

int rmdir(const char *path)
{
    char place[PATH_MAX];
    const char *name = inside(path, place);
    int result = REAL(rmdir)(path);
    if (result == 0 && name != NULL)
        put_locked(RMDIR, 0, name, strlen(name));
    return result;
}

/* connections */

static int accepted(int descriptor)
{
    if (descriptor >= 0 && log_descriptor >= 0) {
        set_kind(descriptor, CONNECTION, 0);
        put_locked(ACCEPT, (uint64_t)descriptor, NULL, 0);
    }
    return descriptor;
}

int accept(int descriptor, struct sockaddr *restrict address, socklen_t *restrict length)
{
    return accepted(REAL(accept)(descriptor, address, length));
}

int accept4(int descriptor, struct sockaddr *restrict address, socklen_t *restrict length, int flags)
{
    return accepted(REAL(accept4)(descriptor, address, length, flags));
}

static ssize_t received(int descriptor, const void *data, ssize_t size)
{
    if (size > 0 && kind_of(descriptor) == CONNECTION)
        put_locked(RECEIVE, (uint64_t)descriptor, data, (size_t)size);
    return size;
}

ssize_t read(int descriptor, void *data, size_t size)
{
    return received(descriptor, data, REAL(read)(descriptor, data, size));
}

ssize_t recv(int descriptor, void *data, size_t size, int flags)
{
    return received(descriptor, data, REAL(recv)(descriptor, data, size, flags));
}

ssize_t send(int descriptor, const void *data, size_t size, int flags)
{
    struct iovec part = {(void *)data, size};
    if (kind_of(descriptor) == CONNECTION)
        sent(descriptor, &part, 1);
    return REAL(send)(descriptor, data, size, flags);
}

ssize_t sendmsg(int descriptor, const struct msghdr *message, int flags)
{
    if (kind_of(descriptor) == CONNECTION)
        sent(descriptor, message->msg_iov, message->msg_iovlen);
    return REAL(sendmsg)(descriptor, message, flags);
}
