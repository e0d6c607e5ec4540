// Servers and clients of the packet matrix, on the kernel of a guest: each card of the guest in a network name space of
// its own serves every port of the plan, and asks every other card for each of them.
//
//   clients PLAN      reads lines from a file or a device, up to "end":
//                       own NAME MAC ADDRESS        a card of this guest
//                       card NAME MAC ADDRESS       each card, those of this guest too
//                       ask tcp|udp|ping|ethernet PORT
//
// It says "CLIENTS: ready", waits for a line, finds its neighbours by ARP or neighbour discovery, asks, says "CLIENTS:
// asked N" when there has been no news for a while, waits for another line, and says what it has seen:
//   NEIGHBOUR one other               one has found out other's MAC address
//   CAME one other PROTOCOL PORT      what one sent has come to other's server
//   ANSWERED one other PROTOCOL PORT  and the answer has come back to one
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <poll.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <iostream>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace {

constexpr uint16_t kClientPort = 40000;  // no plan names it
constexpr double kQuiet_s = 4, kAgain_s = 1, kNeighbours_s = 4, kLimit_s = 300;
constexpr int kRepetitions = 3;

struct Card {
  std::string name, mac, address;
};
struct Ask {
  std::string protocol;
  uint16_t port;
};
struct Own {
  size_t card;
  std::string device;
  int name_space;
  int udp, ping;            // of its client
  std::vector<int> packet;  // for each ask, -1 where it is none of an Ethernet type
};

std::vector<Card> cards;
std::vector<Ask> asks;
std::vector<Own> owns;
std::set<std::string> seen;
int events;
double news;

[[noreturn]] void give_up(const std::string& what) {
  std::printf("CLIENTS: %s: %s\n", what.c_str(), std::strerror(errno));
  std::exit(1);
}

double now() {
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

void note(const char* what, const Card& one, const Card& other, const std::string& protocol, uint16_t port) {
  std::string line = std::string(what) + " " + one.name + " " + other.name;
  if (!protocol.empty()) line += " " + protocol + " " + std::to_string(port);
  if (seen.insert(line).second) news = now();
}

bool has_seen(const char* what, const Card& one, const Card& other, const Ask& ask) {
  return seen.contains(std::string(what) + " " + one.name + " " + other.name + " " + ask.protocol + " " +
                       std::to_string(ask.port));
}

int family_of(const std::string& address) {
  return address.find(':') != std::string::npos ? AF_INET6 : AF_INET;
}

// Of either version.
struct Place {
  sockaddr_storage storage{};
  socklen_t size = sizeof storage;
  sockaddr* raw() { return reinterpret_cast<sockaddr*>(&storage); }
  sockaddr_in& four() { return reinterpret_cast<sockaddr_in&>(storage); }
  sockaddr_in6& six() { return reinterpret_cast<sockaddr_in6&>(storage); }
  uint16_t port() { return ntohs(four().sin_port); }  // at the same place in both
};

Place at(const std::string& address, uint16_t port) {
  Place where;
  const int family = family_of(address);
  where.storage.ss_family = static_cast<sa_family_t>(family);
  where.four().sin_port = htons(port);
  void* const bytes = family == AF_INET6 ? static_cast<void*>(&where.six().sin6_addr) : &where.four().sin_addr;
  ::inet_pton(family, address.c_str(), bytes);
  where.size = family == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
  return where;
}

const Card* card_with(int family, const void* bytes) {
  char text[INET6_ADDRSTRLEN];
  ::inet_ntop(family, bytes, text, sizeof text);
  for (const Card& card : cards) {
    if (card.address == text) return &card;
  }
  return nullptr;
}

const Card* card_at(Place& where) {
  const int family = where.storage.ss_family;
  return card_with(family,
                   family == AF_INET6 ? static_cast<const void*>(&where.six().sin6_addr) : &where.four().sin_addr);
}

std::vector<uint8_t> bytes_of(const std::string& mac) {
  unsigned part[6] = {};
  std::sscanf(mac.c_str(), "%x:%x:%x:%x:%x:%x", &part[0], &part[1], &part[2], &part[3], &part[4], &part[5]);
  return {part, part + 6};
}

void shell(const std::string& command) {
  if (std::system(command.c_str()) != 0) give_up(command);
}

// What is opened from here on is of this name space.
void enter(int name_space) {
  if (::setns(name_space, CLONE_NEWNET) != 0) give_up("setns");
}

// ---- What waits for something ----

struct Waiting {
  enum class Kind { kListener, kAccepted, kUdpServer, kUdpClient, kPing, kPacket, kConnecting };
  Kind kind;
  int fd;
  size_t own, ask, other;
};

void watch(Waiting::Kind kind, int fd, size_t own, size_t ask = 0, size_t other = 0) {
  // They live as long as the process.
  epoll_event event{};
  event.events = kind == Waiting::Kind::kConnecting ? EPOLLIN | EPOLLOUT | EPOLLET : EPOLLIN;
  event.data.ptr = new Waiting{kind, fd, own, ask, other};
  if (::epoll_ctl(events, EPOLL_CTL_ADD, fd, &event) != 0) give_up("epoll_ctl");
}

int open_socket(int family, int type, int protocol) {
  const int fd = ::socket(family, type | SOCK_NONBLOCK, protocol);
  if (fd < 0) give_up("socket");
  return fd;
}

int family() {
  return family_of(cards.front().address);
}

int bound(int type, uint16_t port) {
  const int fd = open_socket(family(), type, 0), on = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  Place where = at(family() == AF_INET6 ? "::" : "0.0.0.0", port);
  if (::bind(fd, where.raw(), where.size) != 0) give_up("bind to port " + std::to_string(port));
  return fd;
}

void serve(size_t index) {
  Own& own = owns[index];
  enter(own.name_space);
  for (size_t i = 0; i < asks.size(); ++i) {
    const Ask& ask = asks[i];
    own.packet.push_back(-1);
    if (ask.protocol == "tcp") {
      const int fd = bound(SOCK_STREAM, ask.port);
      if (::listen(fd, 64) != 0) give_up("listen");
      watch(Waiting::Kind::kListener, fd, index, i);
    } else if (ask.protocol == "udp") {
      watch(Waiting::Kind::kUdpServer, bound(SOCK_DGRAM, ask.port), index, i);
    } else if (ask.protocol == "ethernet") {
      const int fd = own.packet.back() = open_socket(AF_PACKET, SOCK_RAW, htons(ask.port));
      sockaddr_ll where{};
      where.sll_family = AF_PACKET;
      where.sll_protocol = htons(ask.port);
      where.sll_ifindex = static_cast<int>(::if_nametoindex(own.device.c_str()));
      if (::bind(fd, reinterpret_cast<const sockaddr*>(&where), sizeof where) != 0) give_up("bind of a packet socket");
      watch(Waiting::Kind::kPacket, fd, index, i);
    }
  }
  watch(Waiting::Kind::kUdpClient, own.udp = bound(SOCK_DGRAM, kClientPort), index);
  watch(Waiting::Kind::kPing,
        own.ping =
            open_socket(family(), SOCK_RAW, family() == AF_INET6 ? static_cast<int>(IPPROTO_ICMPV6) : IPPROTO_ICMP),
        index);
}

void datagram(const Waiting& waiting, bool is_server) {
  char buffer[2048];
  Place from;
  const ssize_t size = ::recvfrom(waiting.fd, buffer, sizeof buffer, 0, from.raw(), &from.size);
  const Card* other = size > 0 ? card_at(from) : nullptr;
  if (other == nullptr) return;
  const Card& own = cards[owns[waiting.own].card];
  if (!is_server) return note("ANSWERED", own, *other, "udp", from.port());
  note("CAME", *other, own, "udp", asks[waiting.ask].port);
  (void)!::sendto(waiting.fd, buffer, static_cast<size_t>(size), 0, from.raw(), from.size);
}

void pong(const Waiting& waiting) {
  uint8_t buffer[2048];
  Place from;
  const ssize_t size = ::recvfrom(waiting.fd, buffer, sizeof buffer, 0, from.raw(), &from.size);
  // The head of IPv4 comes along.
  const bool is_answer =
      family() == AF_INET6 ? size >= 8 && buffer[0] == ICMP6_ECHO_REPLY : size >= 28 && buffer[20] == 0;
  if (!is_answer) return;
  if (const Card* other = card_at(from)) note("ANSWERED", cards[owns[waiting.own].card], *other, "ping", 0);
}

void packet(const Waiting& waiting) {
  uint8_t buffer[2048];
  sockaddr_ll from{};
  socklen_t length = sizeof from;
  const ssize_t size = ::recvfrom(waiting.fd, buffer, sizeof buffer, 0, reinterpret_cast<sockaddr*>(&from), &length);
  if (size < 14 || from.sll_pkttype == PACKET_OUTGOING) return;
  for (const Card& other : cards) {
    if (std::memcmp(bytes_of(other.mac).data(), buffer + 6, 6) == 0)
      note("CAME", other, cards[owns[waiting.own].card], "ethernet", asks[waiting.ask].port);
  }
}

void accept_one(const Waiting& waiting) {
  Place from;
  const int fd = ::accept4(waiting.fd, from.raw(), &from.size, SOCK_NONBLOCK);
  if (fd < 0) return;
  if (const Card* other = card_at(from))
    note("CAME", *other, cards[owns[waiting.own].card], "tcp", asks[waiting.ask].port);
  watch(Waiting::Kind::kAccepted, fd, waiting.own, waiting.ask);
}

void handle(const Waiting& waiting, uint32_t what) {
  char buffer[64];
  switch (waiting.kind) {
    case Waiting::Kind::kListener:
      return accept_one(waiting);
    case Waiting::Kind::kUdpServer:
      return datagram(waiting, true);
    case Waiting::Kind::kUdpClient:
      return datagram(waiting, false);
    case Waiting::Kind::kPing:
      return pong(waiting);
    case Waiting::Kind::kPacket:
      return packet(waiting);
    case Waiting::Kind::kAccepted: {
      const ssize_t size = ::read(waiting.fd, buffer, sizeof buffer);
      if (size <= 0 || ::write(waiting.fd, buffer, static_cast<size_t>(size)) != size) ::close(waiting.fd);
      return;
    }
    case Waiting::Kind::kConnecting:
      if ((what & (EPOLLERR | EPOLLHUP)) != 0) {
        ::close(waiting.fd);
      } else if ((what & EPOLLIN) != 0) {
        if (::read(waiting.fd, buffer, sizeof buffer) > 0)
          note("ANSWERED", cards[owns[waiting.own].card], cards[waiting.other], "tcp", asks[waiting.ask].port);
        ::close(waiting.fd);
      } else {
        (void)!::write(waiting.fd, "bits", 4);
      }
  }
}

// Takes what comes, for so long.
void work(double seconds) {
  const double end = now() + seconds;
  do {
    epoll_event ready[64];
    const int count = ::epoll_wait(events, ready, 64, static_cast<int>(std::max(0.0, 1000 * (end - now()))));
    for (int i = 0; i < count; ++i) handle(*static_cast<const Waiting*>(ready[i].data.ptr), ready[i].events);
  } while (now() < end);
}

// Serves until the host types a line.
void serve_until_told() {
  for (;;) {
    work(0.1);
    pollfd input{STDIN_FILENO, POLLIN, 0};
    char line[64];
    if (::poll(&input, 1, 0) > 0 && ::read(STDIN_FILENO, line, sizeof line) > 0) return;
  }
}

// ---- Questions ----

void set_up(Own& own) {
  static const int first = ::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
  enter(first);
  const Card& card = cards[own.card];
  int ready[2];
  if (::pipe(ready) != 0) give_up("pipe");
  const pid_t holder = ::fork();
  if (holder == 0) {
    if (::unshare(CLONE_NEWNET) != 0) give_up("unshare");
    (void)!::write(ready[1], "x", 1);
    for (;;) ::pause();
  }
  char byte;
  (void)!::read(ready[0], &byte, 1);
  for (int number = 0; own.device.empty(); ++number) {
    std::string mac;
    std::ifstream("/sys/class/net/eth" + std::to_string(number) + "/address") >> mac;
    if (mac == card.mac) own.device = "eth" + std::to_string(number);
    if (number > 64) give_up("no card " + card.mac);
  }
  shell("ip link set " + own.device + " netns " + std::to_string(holder));
  own.name_space = ::open(("/proc/" + std::to_string(holder) + "/ns/net").c_str(), O_RDONLY | O_CLOEXEC);
  enter(own.name_space);
  // Nobody else has the address; the kernel would wait a second to find that out.
  shell("ip link set lo up && { echo 0 > /proc/sys/net/ipv6/conf/" + own.device + "/accept_dad; ip link set " +
        own.device + " up; } && ip addr add " + card.address + (family() == AF_INET6 ? "/120" : "/24") + " dev " +
        own.device);
}

// ---- The kernel's table of neighbours, by rtnetlink(7) ----

void append(std::vector<uint8_t>& message, uint16_t kind, const void* bytes, size_t size) {
  const rtattr head{static_cast<uint16_t>(sizeof head + size), kind};
  const auto* raw = reinterpret_cast<const uint8_t*>(&head);
  message.insert(message.end(), raw, raw + sizeof head);
  message.insert(message.end(), static_cast<const uint8_t*>(bytes), static_cast<const uint8_t*>(bytes) + size);
  message.resize((message.size() + 3) / 4 * 4);
}

std::vector<uint8_t> table_message(uint16_t kind, uint16_t flags, const Own& own) {
  struct {
    nlmsghdr head;
    ndmsg entry;
  } begin{};
  begin.head.nlmsg_type = kind;
  begin.head.nlmsg_flags = static_cast<uint16_t>(NLM_F_REQUEST | flags);
  begin.entry.ndm_family = static_cast<uint8_t>(family());
  begin.entry.ndm_ifindex = static_cast<int>(::if_nametoindex(own.device.c_str()));
  begin.entry.ndm_state = NUD_PERMANENT;
  const auto* raw = reinterpret_cast<const uint8_t*>(&begin);
  return {raw, raw + sizeof begin};
}

// Sends a question and gives each message that answers it, until that says the end.
template <class Take>
void ask_table(std::vector<uint8_t> message, Take take) {
  reinterpret_cast<nlmsghdr*>(message.data())->nlmsg_len = static_cast<uint32_t>(message.size());
  const int fd = ::socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
  if (fd < 0 || ::send(fd, message.data(), message.size(), 0) < 0) give_up("rtnetlink");
  for (bool ends = false; !ends;) {
    alignas(nlmsghdr) uint8_t buffer[32768];
    auto size = static_cast<int>(::recv(fd, buffer, sizeof buffer, 0));
    if (size <= 0) give_up("rtnetlink");
    for (auto* each = reinterpret_cast<nlmsghdr*>(buffer); NLMSG_OK(each, static_cast<unsigned>(size));
         each = NLMSG_NEXT(each, size)) {
      ends = each->nlmsg_type == NLMSG_DONE || each->nlmsg_type == NLMSG_ERROR;
      if (ends) errno = -*static_cast<int*>(NLMSG_DATA(each));
      if (ends && each->nlmsg_type == NLMSG_ERROR && errno != 0) give_up("a neighbour");
      if (!ends) take(*each);
    }
  }
  ::close(fd);
}

// Those whose MAC address the kernel has found out.
std::set<const Card*> found_by(const Own& own) {
  std::set<const Card*> found;
  ask_table(table_message(RTM_GETNEIGH, NLM_F_DUMP, own), [&](nlmsghdr& message) {
    auto* entry = static_cast<ndmsg*>(NLMSG_DATA(&message));
    if ((entry->ndm_state & (NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE)) == 0) return;
    auto size = static_cast<int>(message.nlmsg_len - NLMSG_LENGTH(sizeof *entry));
    for (auto* each = reinterpret_cast<rtattr*>(entry + 1); RTA_OK(each, size); each = RTA_NEXT(each, size)) {
      if (each->rta_type == NDA_DST) found.insert(card_with(family(), RTA_DATA(each)));
    }
  });
  return found;
}

void tell_neighbour(const Own& own, const Card& other) {
  std::vector<uint8_t> message = table_message(RTM_NEWNEIGH, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, own);
  uint8_t address[16];
  ::inet_pton(family(), other.address.c_str(), address);
  append(message, NDA_DST, address, family() == AF_INET6 ? 16 : 4);
  append(message, NDA_LLADDR, bytes_of(other.mac).data(), 6);
  ask_table(std::move(message), [](nlmsghdr&) {});
}

void find_neighbours() {
  for (const Own& own : owns) {
    for (const Card& other : cards) {
      Place where = at(other.address, 9);
      if (&other != &cards[own.card]) (void)!::sendto(own.udp, "who", 3, 0, where.raw(), where.size);
    }
  }
  work(kNeighbours_s);
  for (const Own& own : owns) {
    enter(own.name_space);
    const std::set<const Card*> found = found_by(own);
    for (const Card& other : cards) {
      if (&other == &cards[own.card]) continue;
      // Without it, it would not be the question that is refused, or passes a conduit that has no way back.
      if (!found.contains(&other))
        tell_neighbour(own, other);
      else
        note("NEIGHBOUR", cards[own.card], other, "", 0);
    }
  }
}

void ask_one(size_t index, size_t other_index, size_t ask_index, bool again) {
  const Own& own = owns[index];
  const Card &one = cards[own.card], &other = cards[other_index];
  const Ask& ask = asks[ask_index];
  Place where = at(other.address, ask.port);
  if (ask.protocol == "tcp") {
    // The kernel repeats what is lost.
    if (again) return;
    const int fd = open_socket(family(), SOCK_STREAM, 0);
    if (::connect(fd, where.raw(), where.size) == 0 || errno == EINPROGRESS)
      return watch(Waiting::Kind::kConnecting, fd, index, ask_index, other_index);
    ::close(fd);
  } else if (ask.protocol == "udp") {
    if (!has_seen("ANSWERED", one, other, ask)) (void)!::sendto(own.udp, "question", 8, 0, where.raw(), where.size);
  } else if (ask.protocol == "ping") {
    // The kernel sums that of IPv6 itself.
    const uint8_t four[8] = {ICMP_ECHO, 0, 0xF7, 0xFD, 0, 1, 0, 1}, six[8] = {ICMP6_ECHO_REQUEST, 0, 0, 0, 0, 1, 0, 1};
    const uint8_t* const echo = family() == AF_INET6 ? six : four;
    if (!has_seen("ANSWERED", one, other, ask))
      (void)!::sendto(own.ping, echo, sizeof four, 0, where.raw(), where.size);
  } else {
    std::vector<uint8_t> frame = bytes_of(other.mac), source = bytes_of(one.mac);
    frame.insert(frame.end(), source.begin(), source.end());
    frame.insert(frame.end(), {static_cast<uint8_t>(ask.port >> 8), static_cast<uint8_t>(ask.port), 0xFE,
                               0xFE});  // a FrameID of DCP
    frame.resize(60);
    (void)!::send(own.packet[ask_index], frame.data(), frame.size(), 0);
  }
}

size_t ask_all(bool again) {
  size_t count = 0;
  for (size_t index = 0; index < owns.size(); ++index) {
    enter(owns[index].name_space);
    for (size_t other = 0; other < cards.size(); ++other) {
      if (other == owns[index].card) continue;
      for (size_t ask = 0; ask < asks.size(); ++ask, ++count) {
        ask_one(index, other, ask, again);
        if (ask % 8 == 7) work(0);
      }
      work(0.02);
    }
  }
  return count;
}

bool read_plan(const char* path) {
  std::ifstream plan(path);
  for (std::string line; std::getline(plan, line);) {
    std::istringstream words(line);
    std::string kind, name, mac, address;
    words >> kind >> name;
    if (kind == "end") return true;
    if (kind == "ask") {
      unsigned port = 0;
      words >> port;
      asks.push_back({name, static_cast<uint16_t>(port)});
      continue;
    }
    words >> mac >> address;
    if (kind == "card") cards.push_back({name, mac, address});
    for (size_t i = 0; kind == "own" && i < cards.size(); ++i) {
      if (cards[i].name == name) owns.push_back({i, "", -1, -1, -1, {}});
    }
  }
  return false;
}

}  // namespace

int main(int count, char** arguments) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  if (count != 2 || !read_plan(arguments[1])) give_up("no plan");
  const rlimit files{65536, 65536};
  ::setrlimit(RLIMIT_NOFILE, &files);
  events = ::epoll_create1(EPOLL_CLOEXEC);
  for (Own& own : owns) set_up(own);
  for (size_t index = 0; index < owns.size(); ++index) serve(index);
  std::printf("CLIENTS: ready\n");
  serve_until_told();
  find_neighbours();
  const double limit = now() + kLimit_s;
  const size_t asked = ask_all(false);
  for (int i = 0; i < kRepetitions; ++i) {
    work(kAgain_s);
    ask_all(true);
  }
  for (news = now(); now() < news + kQuiet_s && now() < limit;) work(0.2);
  std::printf("CLIENTS: asked %zu\n", asked);
  serve_until_told();
  for (const std::string& line : seen) std::printf("%s\n", line.c_str());
  std::printf("CLIENTS DONE\n");
  return 0;
}
