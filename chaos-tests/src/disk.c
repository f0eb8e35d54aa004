// A disk that does not sync any more, for one process: as long as the file is there that FSYNC_FAILS_WHILE names.
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static int sync_with(long call, int file) {
  const char *mark = getenv("FSYNC_FAILS_WHILE");
  if (mark && access(mark, F_OK) == 0) {
    errno = EIO;
    return -1;
  }
  return (int)syscall(call, file);
}

int fsync(int file) { return sync_with(SYS_fsync, file); }
int fdatasync(int file) { return sync_with(SYS_fdatasync, file); }
