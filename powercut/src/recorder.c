/*
 * Keeps, beside a directory, what a power cut would leave of it. Preloaded into a process.
 *
 * A file is what it was when it was last synced; a directory holds the names that it held when it
 * was last synced. Both are kept by inode in the directory POWERCUT_DURABLE:
 *
 *   f<inode>  the bytes of a file
 *   d<inode>  the names in a directory, one a line: `f<inode> name` or `d<inode> name`
 *
 * What was never synced is not there. This is the strictest disk that the standard allows: it keeps
 * nothing that it was not asked to keep. Only what lies under POWERCUT_ROOT is looked at.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char *env(const char *name) {
    const char *value = getenv(name);
    return value != NULL && value[0] != '\0' ? value : NULL;
}

/* A test whose recording is incomplete would pass for no reason. */
static void give_up(const char *what) {
    fprintf(stderr, "powercut: %s: %s\n", what, strerror(errno));
    _exit(99);
}

static int is_watched(const char *path) {
    const char *root = env("POWERCUT_ROOT");
    if (root == NULL || env("POWERCUT_DURABLE") == NULL) return 0;
    size_t length = strlen(root);
    return strncmp(path, root, length) == 0 && (path[length] == '/' || path[length] == '\0');
}

static int fd_is_watched(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = '\0';
    return is_watched(path);
}

static int real_open(const char *path, int flags, mode_t mode) {
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

static void place(char *into, const char *kind, unsigned long inode) {
    snprintf(into, PATH_MAX, "%s/%s%lu", env("POWERCUT_DURABLE"), kind, inode);
}

static int draft(char *into) {
    snprintf(into, PATH_MAX, "%s/draft-%ld-%ld", env("POWERCUT_DURABLE"), (long)getpid(),
             (long)syscall(SYS_gettid));
    int out = real_open(into, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (out < 0) give_up("cannot write a draft");
    return out;
}

static void put(int out, const char *bytes, size_t length) {
    while (length > 0) {
        ssize_t written = write(out, bytes, length);
        if (written <= 0) give_up("cannot write");
        bytes += written;
        length -= (size_t)written;
    }
}

static void finish(int out, const char *from, const char *kind, unsigned long inode) {
    char to[PATH_MAX];
    place(to, kind, inode);
    close(out);
    if (syscall(SYS_renameat, AT_FDCWD, from, AT_FDCWD, to) != 0) give_up("cannot rename");
}

static void keep_file(int fd, unsigned long inode) {
    char name[PATH_MAX], link[64], bytes[1 << 16];
    int out = draft(name);
    /* Opened anew: the caller may have opened it for writing only. */
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    int in = real_open(link, O_RDONLY | O_CLOEXEC, 0);
    if (in < 0) give_up("cannot read a file that is synced");
    ssize_t length;
    while ((length = read(in, bytes, sizeof bytes)) > 0) put(out, bytes, (size_t)length);
    if (length < 0) give_up("cannot read a file that is synced");
    close(in);
    finish(out, name, "f", inode);
}

static void keep_directory(int fd, unsigned long inode) {
    char name[PATH_MAX], line[PATH_MAX], link[64];
    int out = draft(name);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    DIR *dir = opendir(link);
    if (dir == NULL) give_up("cannot list a directory that is synced");
    struct dirent *item;
    while ((item = readdir(dir)) != NULL) {
        if (strcmp(item->d_name, ".") == 0 || strcmp(item->d_name, "..") == 0) continue;
        int length = snprintf(line, sizeof line, "%c%lu %s\n", item->d_type == DT_DIR ? 'd' : 'f',
                              (unsigned long)item->d_ino, item->d_name);
        put(out, line, (size_t)length);
    }
    closedir(dir);
    finish(out, name, "d", inode);
}

static void keep(int fd) {
    int before = errno;
    struct stat found;
    if (fd_is_watched(fd) && fstat(fd, &found) == 0) {
        if (S_ISDIR(found.st_mode)) keep_directory(fd, found.st_ino);
        else if (S_ISREG(found.st_mode)) keep_file(fd, found.st_ino);
    }
    errno = before;
}

/* An inode number that is used again has nothing durable. */
static void forget(const char *kind, unsigned long inode) {
    char path[PATH_MAX];
    place(path, kind, inode);
    syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

int fsync(int fd) {
    int result = (int)syscall(SYS_fsync, fd);
    if (result == 0) keep(fd);
    return result;
}

int fdatasync(int fd) {
    int result = (int)syscall(SYS_fdatasync, fd);
    if (result == 0) keep(fd);
    return result;
}

static int open_any(int directory, const char *path, int flags, mode_t mode) {
    int fresh = 0;
    if ((flags & O_CREAT) != 0 && env("POWERCUT_ROOT") != NULL) {
        fresh = faccessat(directory, path, F_OK, 0) != 0;
    }
    int fd = (int)syscall(SYS_openat, directory, path, flags, mode);
    if (fd >= 0 && fresh && fd_is_watched(fd)) {
        struct stat found;
        if (fstat(fd, &found) == 0) forget("f", found.st_ino);
    }
    return fd;
}

#define MODE_OF(flags, mode)                                  \
    mode_t mode = 0;                                          \
    if (((flags) & (O_CREAT | __O_TMPFILE)) != 0) {           \
        va_list rest;                                         \
        va_start(rest, flags);                                \
        mode = va_arg(rest, mode_t);                          \
        va_end(rest);                                         \
    }

int open(const char *path, int flags, ...) {
    MODE_OF(flags, mode)
    return open_any(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    MODE_OF(flags, mode)
    return open_any(AT_FDCWD, path, flags | O_LARGEFILE, mode);
}

int openat(int directory, const char *path, int flags, ...) {
    MODE_OF(flags, mode)
    return open_any(directory, path, flags, mode);
}

int openat64(int directory, const char *path, int flags, ...) {
    MODE_OF(flags, mode)
    return open_any(directory, path, flags | O_LARGEFILE, mode);
}

static FILE *open_stream(const char *name, const char *path, const char *mode) {
    FILE *(*next)(const char *, const char *) =
        (FILE * (*)(const char *, const char *)) dlsym(RTLD_NEXT, name);
    int fresh = env("POWERCUT_ROOT") != NULL && faccessat(AT_FDCWD, path, F_OK, 0) != 0;
    FILE *stream = next(path, mode);
    if (stream != NULL && fresh && fd_is_watched(fileno(stream))) {
        struct stat found;
        if (fstat(fileno(stream), &found) == 0) forget("f", found.st_ino);
    }
    return stream;
}

FILE *fopen(const char *path, const char *mode) { return open_stream("fopen", path, mode); }

FILE *fopen64(const char *path, const char *mode) { return open_stream("fopen64", path, mode); }

int mkdir(const char *path, mode_t mode) {
    int result = (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
    if (result == 0 && is_watched(path)) {
        struct stat found;
        if (stat(path, &found) == 0) forget("d", found.st_ino);
    }
    return result;
}
