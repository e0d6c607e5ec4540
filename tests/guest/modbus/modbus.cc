// A Modbus/TCP server with a hundred holding registers, and a client that asks once: what the plants of the system
// tests run.
//
//   modbus serve PORT                        answers reads (3) and writes (6), says what it was asked
//   modbus ask ADDRESS PORT read|write N     prints the value, the exception, or that there was no answer
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

constexpr size_t kRegisters = 100, kRequestSize = 12;
uint16_t registers[kRegisters];

bool read_exactly(int fd, uint8_t* to, size_t size) {
  for (size_t done = 0; done < size;) {
    const ssize_t count = ::read(fd, to + done, size - done);
    if (count <= 0) return false;
    done += static_cast<size_t>(count);
  }
  return true;
}

void serve_client(int client) {
  uint8_t request[kRequestSize];
  while (read_exactly(client, request, sizeof request)) {
    const auto number = static_cast<uint16_t>(request[8] << 8 | request[9]);
    const auto value = static_cast<uint16_t>(request[10] << 8 | request[11]);
    uint8_t answer[kRequestSize];
    std::memcpy(answer, request, sizeof answer);
    size_t size = kRequestSize;
    if (number >= kRegisters || (request[7] != 3 && request[7] != 6)) {
      answer[7] |= 0x80;
      answer[8] = number >= kRegisters ? 2 : 1;
      size = 9;
    } else if (request[7] == 6) {
      registers[number] = value;
      std::printf("SERVER: register %u written: %u\n", number, value);
    } else {
      answer[8] = 2;
      answer[9] = static_cast<uint8_t>(registers[number] >> 8);
      answer[10] = static_cast<uint8_t>(registers[number]);
      size = 11;
    }
    answer[5] = static_cast<uint8_t>(size - 6);
    if (::write(client, answer, size) != static_cast<ssize_t>(size)) return;
  }
}

int serve(uint16_t port) {
  for (size_t i = 0; i < kRegisters; ++i) registers[i] = static_cast<uint16_t>(1000 + i);
  const int listener = ::socket(AF_INET, SOCK_STREAM, 0), on = 1;
  ::setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  if (::bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 || ::listen(listener, 8) != 0)
    return 1;
  std::printf("SERVER: ready\n");
  for (;;) {
    const int client = ::accept(listener, nullptr, nullptr);
    if (client < 0) continue;
    if (::fork() == 0) {
      serve_client(client);
      std::_Exit(0);
    }
    ::close(client);
  }
}

int ask(const char* where, uint16_t port, bool writes, uint16_t number) {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  const timeval patience{4, 0};
  ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  ::inet_pton(AF_INET, where, &address.sin_addr);
  const char* const what = writes ? "write" : "read";
  std::printf("ASKED %s:%u %s %u: ", where, port, what, number);
  if (::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
    return std::printf("no connection\n"), 1;
  const uint8_t request[kRequestSize] = {0,
                                         1,
                                         0,
                                         0,
                                         0,
                                         6,
                                         1,
                                         static_cast<uint8_t>(writes ? 6 : 3),
                                         static_cast<uint8_t>(number >> 8),
                                         static_cast<uint8_t>(number),
                                         0,
                                         1};
  uint8_t answer[kRequestSize];
  if (::write(fd, request, sizeof request) != sizeof request || !read_exactly(fd, answer, 9)) {
    return std::printf("no answer\n"), 1;
  }
  if ((answer[7] & 0x80) != 0) return std::printf("exception %u\n", answer[8]), 1;
  if (writes) return std::printf("written\n"), 0;
  if (!read_exactly(fd, answer + 9, 2)) return std::printf("no answer\n"), 1;
  return std::printf("%u\n", answer[9] << 8 | answer[10]), 0;
}

}  // namespace

int main(int count, char** words) {
  ::setvbuf(stdout, nullptr, _IOLBF, 0);
  ::signal(SIGCHLD, SIG_IGN);
  if (count == 3 && std::strcmp(words[1], "serve") == 0) return serve(static_cast<uint16_t>(std::atoi(words[2])));
  if (count == 6 && std::strcmp(words[1], "ask") == 0) {
    return ask(words[2], static_cast<uint16_t>(std::atoi(words[3])), std::strcmp(words[4], "write") == 0,
               static_cast<uint16_t>(std::atoi(words[5])));
  }
  return 2;
}
