// Long connections and a beat, for tests in which what is between two guests dies.
//
//   streams serve PORT                  sends back what comes, by TCP and UDP
//   streams run ADDRESS PORT COUNT      COUNT connections say numbered records and compare what comes back, a datagram
//   goes out every
//                                       10 ms; says twice a second how many records and datagrams came back
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>
#include <vector>

namespace {

constexpr size_t kRecord = 1000;
constexpr int kBeat_ms = 10, kReport_ms = 500;

int64_t now_ms() {
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<int64_t>(time.tv_sec) * 1000 + time.tv_nsec / 1000000;
}

sockaddr_in at(const char* address, uint16_t port) {
  sockaddr_in where{};
  where.sin_family = AF_INET;
  where.sin_port = htons(port);
  ::inet_pton(AF_INET, address, &where.sin_addr);
  return where;
}

int bound(int type, uint16_t port) {
  const int fd = ::socket(AF_INET, type, 0), on = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  const sockaddr_in where = at("0.0.0.0", port);
  if (::bind(fd, reinterpret_cast<const sockaddr*>(&where), sizeof where) != 0) std::perror("bind");
  return fd;
}

[[noreturn]] void serve(uint16_t port) {
  const int listener = bound(SOCK_STREAM, port), datagrams = bound(SOCK_DGRAM, port);
  ::listen(listener, 64);
  std::printf("STREAMS: serving\n");
  std::vector<pollfd> waiting{{listener, POLLIN, 0}, {datagrams, POLLIN, 0}};
  for (;;) {
    if (::poll(waiting.data(), waiting.size(), -1) < 0) continue;
    uint8_t buffer[4096];
    if (waiting[1].revents != 0) {
      sockaddr_in from{};
      socklen_t length = sizeof from;
      const ssize_t size = ::recvfrom(datagrams, buffer, sizeof buffer, 0, reinterpret_cast<sockaddr*>(&from), &length);
      if (size > 0)
        (void)!::sendto(datagrams, buffer, static_cast<size_t>(size), 0, reinterpret_cast<const sockaddr*>(&from),
                        length);
    }
    for (size_t i = 2; i < waiting.size(); ++i) {
      if (waiting[i].revents == 0) continue;
      const ssize_t size = ::read(waiting[i].fd, buffer, sizeof buffer);
      if (size > 0 && ::write(waiting[i].fd, buffer, static_cast<size_t>(size)) == size) continue;
      std::printf("STREAMS: a connection has ended\n");
      ::close(waiting[i].fd);
      waiting[i].fd = -1;
    }
    if (waiting[0].revents != 0) waiting.push_back({::accept(listener, nullptr, nullptr), POLLIN, 0});
  }
}

struct Connection {
  uint64_t number = 0;
  int64_t next_ms = 0;  // when a record goes out; 0: one is under way
  std::vector<uint8_t> record, came;
};

void say(int fd, Connection& connection) {
  connection.record.assign(kRecord, static_cast<uint8_t>(++connection.number));
  std::memcpy(connection.record.data(), &connection.number, sizeof connection.number);
  connection.came.clear();
  connection.next_ms = 0;
  (void)!::write(fd, connection.record.data(), kRecord);
}

[[noreturn]] void run(const char* address, uint16_t port, size_t count) {
  const sockaddr_in where = at(address, port);
  const auto* to = reinterpret_cast<const sockaddr*>(&where);
  std::vector<pollfd> waiting{{bound(SOCK_DGRAM, 0), POLLIN, 0}};
  std::vector<Connection> connections(count);
  for (Connection& each : connections) {
    const int fd = ::socket(AF_INET, SOCK_STREAM, 0), on = 1;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    while (::connect(fd, to, sizeof where) != 0) ::usleep(100000);
    waiting.push_back({fd, POLLIN, 0});
    say(fd, each);
  }
  uint64_t records = 0, wrong = 0, broken = 0, beats = 0;
  for (int64_t beat_ms = 0, report_ms = 0;;) {
    const int64_t now = now_ms();
    if (now >= beat_ms) {
      (void)!::sendto(waiting[0].fd, "beat", 4, 0, to, sizeof where);
      beat_ms = now + kBeat_ms;
    }
    if (now >= report_ms) {
      std::printf("STREAMS: %llu records, %llu beats, %llu wrong, %llu broken\n",
                  static_cast<unsigned long long>(records), static_cast<unsigned long long>(beats),
                  static_cast<unsigned long long>(wrong), static_cast<unsigned long long>(broken));
      report_ms = now + kReport_ms;
    }
    for (size_t i = 0; i < count; ++i) {
      if (connections[i].next_ms != 0 && now >= connections[i].next_ms) say(waiting[i + 1].fd, connections[i]);
    }
    if (::poll(waiting.data(), waiting.size(), kBeat_ms / 2) <= 0) continue;
    uint8_t buffer[4096];
    if (waiting[0].revents != 0 && ::recv(waiting[0].fd, buffer, sizeof buffer, MSG_DONTWAIT) > 0) ++beats;
    for (size_t i = 0; i < count; ++i) {
      pollfd& each = waiting[i + 1];
      if (each.revents == 0) continue;
      Connection& connection = connections[i];
      const ssize_t size = ::read(each.fd, buffer, sizeof buffer);
      if (size <= 0) {
        ++broken;
        each.fd = -1;
        connection.next_ms = 0;
        continue;
      }
      connection.came.insert(connection.came.end(), buffer, buffer + size);
      if (connection.came.size() < kRecord) continue;
      ++records;
      if (connection.came != connection.record) ++wrong;
      connection.next_ms = now + kBeat_ms;
    }
  }
}

}  // namespace

int main(int count, char** arguments) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  std::signal(SIGPIPE, SIG_IGN);
  const std::string what = count > 1 ? arguments[1] : "";
  if (what == "serve" && count == 3) serve(static_cast<uint16_t>(std::atoi(arguments[2])));
  if (what == "run" && count == 5)
    run(arguments[2], static_cast<uint16_t>(std::atoi(arguments[3])), std::strtoul(arguments[4], nullptr, 10));
  std::fprintf(stderr, "usage: see the top of streams.cc\n");
  return 2;
}
