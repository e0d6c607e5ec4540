/* Traffic between guests and to the host, whose every byte is compared: a server, a sender, a receiver, and what a card
 * can do. Built statically; prints figures by CLOCK_MONOTONIC and ends with status 1 when a byte was wrong. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { kPeriod = 65521, kBlock = 1 << 17 }; /* a prime: a block that is lost or doubled shows */
static uint8_t pattern[kPeriod + kBlock];
static uint8_t buffer[kBlock];

struct order {
  uint64_t bytes;
  uint64_t to_server;
};

static void fail(const char *what) {
  fprintf(stderr, "traffic: %s: %s\n", what, strerror(errno));
  exit(1);
}

static void make_pattern(void) {
  uint32_t state = 1;
  for (size_t i = 0; i < sizeof pattern; ++i) {
    if (i == kPeriod) break;
    state = state * 1664525 + 1013904223;
    pattern[i] = (uint8_t)(state >> 24);
  }
  memcpy(pattern + kPeriod, pattern, kPeriod);
  memcpy(pattern + 2 * kPeriod, pattern, sizeof pattern - 2 * kPeriod);
}

static void put(int fd, const void *bytes, size_t size) {
  const char *at = bytes;
  while (size != 0) {
    const ssize_t sent = write(fd, at, size);
    if (sent <= 0) fail("write");
    at += sent;
    size -= (size_t)sent;
  }
}

static void get(int fd, void *bytes, size_t size) {
  char *at = bytes;
  while (size != 0) {
    const ssize_t got = read(fd, at, size);
    if (got <= 0) fail("read");
    at += got;
    size -= (size_t)got;
  }
}

static void send_pattern(int fd, uint64_t bytes) {
  for (uint64_t done = 0; done < bytes;) {
    const uint64_t size = bytes - done < kBlock ? bytes - done : kBlock;
    put(fd, pattern + done % kPeriod, size);
    done += size;
  }
}

/* How many bytes came and were right before the first that was not. */
static uint64_t receive_pattern(int fd, uint64_t bytes) {
  uint64_t done = 0;
  while (done < bytes) {
    const ssize_t got = read(fd, buffer, bytes - done < kBlock ? bytes - done : kBlock);
    if (got <= 0 || memcmp(buffer, pattern + done % kPeriod, (size_t)got) != 0) break;
    done += (uint64_t)got;
  }
  return done;
}

static void serve_one(int fd) {
  struct order order;
  get(fd, &order, sizeof order);
  if (!order.to_server) {
    send_pattern(fd, order.bytes);
    get(fd, &order, 1);
    return;
  }
  const uint64_t right = receive_pattern(fd, order.bytes);
  put(fd, &right, sizeof right);
}

static void serve(uint16_t port) {
  const int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
  struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(port)};
  socklen_t size = sizeof here;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(listener, (struct sockaddr *)&here, sizeof here) != 0 || listen(listener, 16) != 0) fail("listen");
  getsockname(listener, (struct sockaddr *)&here, &size);
  printf("serving: %u\n", ntohs(here.sin_port));
  fflush(stdout);
  for (;;) {
    const int fd = accept(listener, NULL, NULL);
    if (fd < 0) continue;
    if (fork() == 0) {
      serve_one(fd);
      _exit(0);
    }
    close(fd);
    while (waitpid(-1, NULL, WNOHANG) > 0) continue;
  }
}

static int connect_to(const char *address, uint16_t port) {
  struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons(port)};
  inet_pton(AF_INET, address, &there.sin_addr);
  for (int attempt = 0; attempt < 600; ++attempt) {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&there, sizeof there) == 0) return fd;
    close(fd);
    usleep(100000);
  }
  fail(address);
  return -1;
}

static int transfer(const char *name, int to_server, const char *address, uint16_t port, uint64_t bytes) {
  const int fd = connect_to(address, port);
  const struct order order = {bytes, (uint64_t)to_server};
  struct timespec from, to;
  uint64_t right = 0;
  put(fd, &order, sizeof order);
  clock_gettime(CLOCK_MONOTONIC, &from);
  if (to_server) {
    send_pattern(fd, bytes);
    get(fd, &right, sizeof right);
  } else {
    right = receive_pattern(fd, bytes);
  }
  clock_gettime(CLOCK_MONOTONIC, &to);
  if (!to_server) put(fd, "", 1);
  const uint64_t ns = (uint64_t)((to.tv_sec - from.tv_sec) * 1000000000LL + to.tv_nsec - from.tv_nsec);
  printf("%s: %llu right of %llu bytes in %llu ns\n", name, (unsigned long long)right, (unsigned long long)bytes,
         (unsigned long long)ns);
  return right == bytes ? 0 : 1;
}

static void show(int fd, const char *card, const char *name, uint32_t command) {
  struct ethtool_value value = {.cmd = command};
  struct ifreq request;
  memset(&request, 0, sizeof request);
  strncpy(request.ifr_name, card, IFNAMSIZ - 1);
  request.ifr_data = (char *)&value;
  if (ioctl(fd, SIOCETHTOOL, &request) != 0) fail(name);
  printf("%s: %s\n", name, value.data ? "on" : "off");
}

static void features(const char *card) {
  const int fd = socket(AF_INET, SOCK_DGRAM, 0);
  show(fd, card, "tx-checksumming", ETHTOOL_GTXCSUM);
  show(fd, card, "rx-checksumming", ETHTOOL_GRXCSUM);
  show(fd, card, "scatter-gather", ETHTOOL_GSG);
  show(fd, card, "tcp-segmentation-offload", ETHTOOL_GTSO);
  show(fd, card, "link", ETHTOOL_GLINK);
  struct ethtool_channels channels = {.cmd = ETHTOOL_GCHANNELS};
  struct ifreq request;
  memset(&request, 0, sizeof request);
  strncpy(request.ifr_name, card, IFNAMSIZ - 1);
  request.ifr_data = (char *)&channels;
  if (ioctl(fd, SIOCETHTOOL, &request) == 0) printf("queue pairs: %u of %u\n", channels.combined_count, channels.max_combined);
}

// Some drivers let the card look at checksums only when they are asked to.
static int trust(const char *card) {
  const int fd = socket(AF_INET, SOCK_DGRAM, 0);
  struct ethtool_value value = {.cmd = ETHTOOL_SRXCSUM, .data = 1};
  struct ifreq request;
  memset(&request, 0, sizeof request);
  strncpy(request.ifr_name, card, IFNAMSIZ - 1);
  request.ifr_data = (char *)&value;
  return ioctl(fd, SIOCETHTOOL, &request) != 0;
}

int main(int count, char **words) {
  make_pattern();
  if (count == 3 && strcmp(words[1], "serve") == 0) serve((uint16_t)atoi(words[2]));
  if (count == 3 && strcmp(words[1], "features") == 0) return features(words[2]), 0;
  if (count == 3 && strcmp(words[1], "trust") == 0) return trust(words[2]);
  if (count == 5 && strcmp(words[1], "send") == 0) {
    return transfer("sent", 1, words[2], (uint16_t)atoi(words[3]), strtoull(words[4], NULL, 0));
  }
  if (count == 5 && strcmp(words[1], "receive") == 0) {
    return transfer("received", 0, words[2], (uint16_t)atoi(words[3]), strtoull(words[4], NULL, 0));
  }
  fprintf(stderr, "usage: traffic serve PORT | send|receive ADDRESS PORT BYTES | features CARD | trust CARD\n");
  return 2;
}
