// A clock that is wrong, for one process: loaded before everything else, it moves what the C library says of the time.
// Intervals are measured by another clock, which stays right. By how many seconds is in CLOCK_OFFSET_SECONDS, or in the
// file that CLOCK_OFFSET_FILE names: then it can change while the process runs, and a file beside it tells that it was seen.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long offset_in(const char *path) {
  char text[32] = "";
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return 0;
  ssize_t length = read(file, text, sizeof text - 1);
  close(file);
  long seconds = length > 0 ? atol(text) : 0;
  if (seconds != 0) {
    char reached[4096];
    snprintf(reached, sizeof reached, "%s.reached", path);
    if (access(reached, F_OK) != 0) close(open(reached, O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
  }
  return seconds;
}

int clock_gettime(clockid_t id, struct timespec *at) {
  int result = (int)syscall(SYS_clock_gettime, id, at);
  if (result != 0 || (id != CLOCK_REALTIME && id != CLOCK_REALTIME_COARSE)) return result;
  const char *seconds = getenv("CLOCK_OFFSET_SECONDS"), *file = getenv("CLOCK_OFFSET_FILE");
  if (seconds) at->tv_sec += atol(seconds);
  if (file) at->tv_sec += offset_in(file);
  return result;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
  struct timespec now;
  (void)zone;
  if (clock_gettime(CLOCK_REALTIME, &now) != 0) return -1;
  at->tv_sec = now.tv_sec;
  at->tv_usec = now.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *at) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (at) *at = now.tv_sec;
  return now.tv_sec;
}
