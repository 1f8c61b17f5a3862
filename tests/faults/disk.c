/* A disk that refuses calls, for tests: preloaded into a process (LD_PRELOAD), it stands between
   the process, C++ libraries included, and what changes files below a folder.

   disk_refuses(folder, first, last, number): calls first..last below the folder, counted from 1,
   fail with that errno; a first of 0 lets all through. disk_calls(): how many there were since. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static char below[PATH_MAX];
static size_t length;
static long first_refused, last_refused;
static int refusal;
static atomic_long calls;

void disk_refuses(const char *folder, long first, long last, int number) {
  length = 0;
  atomic_store(&calls, 0);
  first_refused = first, last_refused = last, refusal = number;
  snprintf(below, sizeof below, "%s", folder);
  length = strlen(below);
}

long disk_calls(void) { return atomic_load(&calls); }

/* whether a call is one of those that fail, where it is below the folder */
static int refused(const char *path) {
  if (!length || strncmp(path, below, length)) return 0;
  if (path[length] && path[length] != '/') return 0;
  long call = atomic_fetch_add(&calls, 1) + 1;
  if (!first_refused || call < first_refused || call > last_refused) return 0;
  errno = refusal;
  return 1;
}

static int refused_file(int file) {
  char link[64], path[PATH_MAX];
  if (!length) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t size = readlink(link, path, sizeof path - 1);
  if (size < 0) return 0;
  path[size] = 0;
  return refused(path);
}

static int refused_path(int folder, const char *path) {
  char link[64], whole[2 * PATH_MAX];
  if (!length || !path) return 0;
  if (path[0] == '/') return refused(path);
  snprintf(link, sizeof link, folder == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", folder);
  ssize_t size = readlink(link, whole, PATH_MAX - 1);
  if (size < 0) return 0;
  snprintf(whole + size, sizeof whole - size, "/%s", path);
  return refused(whole);
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define WRAP(type, name, parameters, arguments, is_refused) \
  type name parameters { return (is_refused) ? -1 : NEXT(name) arguments; }
#define WRITES(flags) ((flags) & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC))
#define OPEN(name, parameters, folder, given) \
  int name parameters { \
    int mode = 0; \
    if (flags & (O_CREAT | __O_TMPFILE)) { \
      va_list rest; \
      va_start(rest, flags); \
      mode = va_arg(rest, int); \
      va_end(rest); \
    } \
    return WRITES(flags) && refused_path(folder, path) ? -1 : NEXT(name) given; \
  }

OPEN(open, (const char *path, int flags, ...), AT_FDCWD, (path, flags, mode))
OPEN(open64, (const char *path, int flags, ...), AT_FDCWD, (path, flags, mode))
OPEN(openat, (int at, const char *path, int flags, ...), at, (at, path, flags, mode))
OPEN(openat64, (int at, const char *path, int flags, ...), at, (at, path, flags, mode))
WRAP(ssize_t, write, (int file, const void *data, size_t size), (file, data, size),
     refused_file(file))
WRAP(ssize_t, pwrite, (int file, const void *data, size_t size, off_t at), (file, data, size, at),
     refused_file(file))
WRAP(ssize_t, pwrite64, (int file, const void *data, size_t size, off64_t at),
     (file, data, size, at), refused_file(file))
WRAP(ssize_t, writev, (int file, const struct iovec *parts, int count), (file, parts, count),
     refused_file(file))
WRAP(ssize_t, sendfile, (int file, int from, off_t *at, size_t size), (file, from, at, size),
     refused_file(file))
WRAP(ssize_t, sendfile64, (int file, int from, off64_t *at, size_t size), (file, from, at, size),
     refused_file(file))
WRAP(ssize_t, copy_file_range,
     (int from, off64_t *at, int file, off64_t *to, size_t size, unsigned flags),
     (from, at, file, to, size, flags), refused_file(file))
WRAP(int, ftruncate, (int file, off_t size), (file, size), refused_file(file))
WRAP(int, ftruncate64, (int file, off64_t size), (file, size), refused_file(file))
WRAP(int, fsync, (int file), (file), refused_file(file))
WRAP(int, fdatasync, (int file), (file), refused_file(file))
WRAP(int, rename, (const char *from, const char *to), (from, to), refused_path(AT_FDCWD, to))
WRAP(int, renameat, (int at, const char *from, int there, const char *to), (at, from, there, to),
     refused_path(there, to))
WRAP(int, renameat2, (int at, const char *from, int there, const char *to, unsigned flags),
     (at, from, there, to, flags), refused_path(there, to))
WRAP(int, link, (const char *from, const char *to), (from, to), refused_path(AT_FDCWD, to))
WRAP(int, linkat, (int at, const char *from, int there, const char *to, int flags),
     (at, from, there, to, flags), refused_path(there, to))
WRAP(int, mkdir, (const char *path, mode_t mode), (path, mode), refused_path(AT_FDCWD, path))
WRAP(int, mkdirat, (int at, const char *path, mode_t mode), (at, path, mode),
     refused_path(at, path))
WRAP(int, unlink, (const char *path), (path), refused_path(AT_FDCWD, path))
WRAP(int, unlinkat, (int at, const char *path, int flags), (at, path, flags),
     refused_path(at, path))
WRAP(int, rmdir, (const char *path), (path), refused_path(AT_FDCWD, path))
