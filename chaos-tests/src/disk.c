// A disk that does not sync any more, for one process: as long as the file is there that FSYNC_FAILS_WHILE names. Or one
// that takes its time: so many milliseconds for each sync as the file says that FSYNC_SLOW_FILE names. A file beside
// either tells that it was felt.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static void tell_reached(const char *path) {
  char reached[4096];
  snprintf(reached, sizeof reached, "%s.reached", path);
  if (access(reached, F_OK) != 0) close(open(reached, O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
}

static void wait_as_told(const char *path) {
  char text[32] = "";
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return;
  ssize_t length = read(file, text, sizeof text - 1);
  close(file);
  long milliseconds = length > 0 ? atol(text) : 0;
  if (milliseconds <= 0) return;
  tell_reached(path);
  struct timespec pause = {milliseconds / 1000, milliseconds % 1000 * 1000000};
  nanosleep(&pause, NULL);
}

static int sync_with(long call, int file) {
  const char *fails = getenv("FSYNC_FAILS_WHILE"), *slow = getenv("FSYNC_SLOW_FILE");
  if (slow) wait_as_told(slow);
  if (fails && access(fails, F_OK) == 0) {
    tell_reached(fails);
    errno = EIO;
    return -1;
  }
  return (int)syscall(call, file);
}

int fsync(int file) { return sync_with(SYS_fsync, file); }
int fdatasync(int file) { return sync_with(SYS_fdatasync, file); }
