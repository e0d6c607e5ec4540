// The two ends of a data diode, as guests of the system tests run them.
//
//   intruder sample PEER-IP PEER-MAC PORT                sends a datagram every 10 ms, and says every 2 s what came in
//   intruder try OWN-IP PEER-IP PEER-MAC SECONDS SEED    from the first datagram on, tries whatever a taken-over
//   receiver can to get a
//                                                        bit to the peer; says how many frames of each kind left the
//                                                        card
//
// What try sends: raw frames through a packet socket (each function of Frames is a kind), the kernel's own sockets, and
// busybox's tools.
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

namespace {

using Bytes = std::vector<uint8_t>;

constexpr const char* kCard = "eth0";
constexpr uint16_t kFirstSamplePort = 5000, kSamplePorts = 11;
constexpr double kReport_s = 2;
constexpr unsigned kLeastRounds = 20;  // of each kind, however slow the host is

double now() {
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

uint64_t counted(const char* what) {
  std::ifstream file(std::string("/sys/class/net/") + kCard + "/statistics/" + what);
  uint64_t value = 0;
  file >> value;
  return value;
}

Bytes mac_of(const char* text) {
  unsigned part[6] = {};
  std::sscanf(text, "%x:%x:%x:%x:%x:%x", &part[0], &part[1], &part[2], &part[3], &part[4], &part[5]);
  return Bytes(part, part + 6);
}

sockaddr_in at(const char* address, uint16_t port) {
  sockaddr_in where{};
  where.sin_family = AF_INET;
  where.sin_port = htons(port);
  ::inet_pton(AF_INET, address, &where.sin_addr);
  return where;
}

// No ARP passes a diode: the kernel is told where the peer is.
void know(const char* address, const Bytes& mac) {
  const int fd = ::socket(AF_INET, SOCK_DGRAM, 0);
  arpreq entry{};
  const sockaddr_in where = at(address, 0);
  std::memcpy(&entry.arp_pa, &where, sizeof where);
  std::memcpy(entry.arp_ha.sa_data, mac.data(), 6);
  entry.arp_ha.sa_family = ARPHRD_ETHER;
  entry.arp_flags = ATF_PERM | ATF_COM;
  std::strcpy(entry.arp_dev, kCard);
  if (::ioctl(fd, SIOCSARP, &entry) != 0) std::perror("SIOCSARP");
  ::close(fd);
}

[[noreturn]] void sample(const char* peer, const Bytes& mac, uint16_t port) {
  know(peer, mac);
  const int fd = ::socket(AF_INET, SOCK_DGRAM, 0);
  const sockaddr_in where = at(peer, port);
  double said = 0;
  for (uint64_t sent = 0;;) {
    const uint64_t number = __builtin_bswap64(sent + 1);
    if (::sendto(fd, &number, sizeof number, 0, reinterpret_cast<const sockaddr*>(&where), sizeof where) > 0) ++sent;
    ::usleep(10000);
    if (now() < said + kReport_s) continue;
    said = now();
    std::printf("SAMPLES: %llu sent, %llu packets and %llu bytes came in\n", static_cast<unsigned long long>(sent),
                static_cast<unsigned long long>(counted("rx_packets")),
                static_cast<unsigned long long>(counted("rx_bytes")));
  }
}

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15u + 1) {}
  uint32_t next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return static_cast<uint32_t>(state_ >> 16);
  }
  uint32_t below(uint32_t limit) { return next() % limit; }
  bool chance(uint32_t percent) { return below(100) < percent; }
  template <class T>
  T one_of(std::initializer_list<T> values) {
    return values.begin()[below(static_cast<uint32_t>(values.size()))];
  }
  Bytes bytes(size_t count) {
    Bytes made(count);
    for (uint8_t& each : made) each = static_cast<uint8_t>(next());
    return made;
  }

 private:
  uint64_t state_;
};

Bytes operator+(Bytes one, const Bytes& other) {
  one.insert(one.end(), other.begin(), other.end());
  return one;
}
Bytes word(uint32_t value) {
  return {static_cast<uint8_t>(value >> 8), static_cast<uint8_t>(value)};
}
Bytes words(uint32_t value) {
  return word(value >> 16) + word(value);
}

uint16_t checksum(const Bytes& data) {
  uint32_t sum = 0;
  for (size_t i = 0; i < data.size(); ++i) sum += i % 2 ? data[i] : static_cast<uint32_t>(data[i]) << 8;
  while (sum >> 16) sum = (sum & 0xFFFF) + (sum >> 16);
  return static_cast<uint16_t>(~sum);
}

Bytes summed(Bytes data, size_t at, const Bytes& pseudo = {}) {
  const uint16_t sum = checksum(pseudo + data);
  data[at] = static_cast<uint8_t>(sum >> 8);
  data[at + 1] = static_cast<uint8_t>(sum);
  return data;
}

const Bytes kAll(6, 0xFF);

// What stands before a frame of a packet socket with PACKET_VNET_HDR (virtio 1.2, 5.1.6); linux/virtio_net.h is no C++.
struct VnetHeader {
  uint8_t flags = 1;  // the sum is missing
  uint8_t gso_type = 0;
  uint16_t hdr_len = 0, gso_size = 0, csum_start = 34, csum_offset = 0;
};
constexpr uint8_t kGsoTcp4 = 1, kGsoUdp = 3, kGsoUdpSegments = 5, kGsoEcn = 0x80;

// One function a kind. The frames are as a receiver's peer would take them, or wrong in one way.
class Frames {
 public:
  Frames(uint64_t seed, const char* own, const char* peer, Bytes own_mac, Bytes peer_mac)
      : random_(seed),
        mac_(std::move(own_mac)),
        peer_mac_(std::move(peer_mac)),
        own_(address(own)),
        peer_(address(peer)) {}

  void hear(Bytes frame) {
    if (heard_.size() < 64) heard_.emplace_back();
    heard_[heard_next_++ % heard_.size()] = std::move(frame);
  }

  Bytes udp_answer() {
    return to_peer(17, udp(kFirstSamplePort + random_.below(kSamplePorts),
                           random_.chance(50) ? heard_port() : random_.below(65536)));
  }
  Bytes udp_any() {
    return to_peer(17, udp(random_.next(), random_.one_of({53u, 67u, 68u, 123u, 137u, 161u, 514u, 1900u, 2222u, 5353u,
                                                           47808u, 6081u, 4789u})));
  }
  Bytes tcp() { return to_peer(6, tcp_segment(random_.next())); }
  Bytes icmp() {
    return to_peer(1, summed(Bytes{random_.one_of<uint8_t>({0, 8, 5, 9, 10, 13, 14, 15, 17, 42}), 0, 0, 0} +
                                 random_.bytes(8 + random_.below(60)),
                             2));
  }
  Bytes icmp_error() {
    Bytes quoted = random_.bytes(28);
    if (!heard_.empty()) {
      const Bytes& answered = heard();
      quoted.assign(answered.begin() + 14, answered.begin() + 42);
    }
    return to_peer(
        1, summed(Bytes{random_.one_of<uint8_t>({3, 4, 11, 12}), static_cast<uint8_t>(random_.below(16)), 0, 0} +
                      random_.bytes(4) + quoted,
                  2));
  }
  Bytes arp() {
    const Bytes sender = random_.one_of({own_, peer_, other()}), target = random_.one_of({peer_, peer_, own_, other()});
    const uint32_t operation = random_.one_of({1u, 1u, 2u, 2u, 3u, 8u});
    return frame(random_.one_of({kAll, peer_mac_, any_mac()}), random_.chance(80) ? mac_ : peer_mac_, 0x0806,
                 words(0x00010800) + Bytes{6, 4} + word(operation) + (random_.chance(80) ? mac_ : any_mac()) + sender +
                     random_.one_of({Bytes(6), peer_mac_}) + target);
  }
  Bytes fragment() {
    const uint32_t offset = random_.one_of({0u, 0u, 1u, 3u, 185u, 8000u}) & 0x1FFF;
    return frame(peer_mac_, mac_, 0x0800,
                 ipv4(own_, peer_, random_.one_of<uint8_t>({6, 17, 1}), random_.bytes(8 + 8 * random_.below(20)),
                      offset | random_.one_of({0u, 0x2000u, 0x2000u, 0x4000u})));
  }
  Bytes turned() {
    if (heard_.empty()) return udp_answer();
    Bytes turned = heard();
    std::swap_ranges(turned.begin(), turned.begin() + 6, turned.begin() + 6);
    std::swap_ranges(turned.begin() + 26, turned.begin() + 30, turned.begin() + 30);
    std::swap_ranges(turned.begin() + 34, turned.begin() + 36, turned.begin() + 36);
    return turned;
  }
  Bytes repeated() { return heard_.empty() ? udp_answer() : heard(); }
  Bytes forged_mac() {
    const Bytes from =
        random_.one_of({peer_mac_, any_mac(), kAll, Bytes(6), Bytes{1, 0, 0x5E, 0, 0, 1}, Bytes{2, 0, 0, 0, 0, 3}});
    return frame(peer_mac_, from, 0x0800,
                 ipv4(random_.one_of({own_, peer_, other()}), peer_, 17, udp(kFirstSamplePort, kFirstSamplePort)));
  }
  Bytes forged_address() {
    return frame(peer_mac_, mac_, 0x0800,
                 ipv4(random_.one_of({peer_, other(), Bytes{127, 0, 0, 1}, Bytes(4), kAll, Bytes{224, 0, 0, 1}}), peer_,
                      17, udp(kFirstSamplePort, random_.next())));
  }
  Bytes tagged() {
    Bytes inner = random_.one_of<Bytes>({udp_answer(), tcp(), arp(), multicast(), turned()});
    for (uint32_t tags = 1 + random_.below(3); tags > 0; --tags) {
      const Bytes tag = word(random_.one_of({0x8100u, 0x8100u, 0x88A8u, 0x9100u})) +
                        word(random_.one_of({0u, 1u, 2u, 0xFFFu, 0xE000u, 0xE001u, random_.next()}));
      inner.insert(inner.begin() + 12, tag.begin(), tag.end());
    }
    return inner;
  }
  Bytes igmp() {
    const Bytes group{static_cast<uint8_t>(224 + random_.below(16)), 1, 1, static_cast<uint8_t>(random_.below(8))};
    const uint8_t kind = random_.one_of<uint8_t>({0x11, 0x12, 0x16, 0x17, 0x22});
    Bytes message = Bytes{kind, static_cast<uint8_t>(random_.below(100)), 0, 0};
    message = kind == 0x22 ? message + Bytes{0, 0, 0, 1, static_cast<uint8_t>(1 + random_.below(6)), 0, 0, 0} + group
                           : message + group;
    const Bytes to = random_.one_of({group, Bytes{224, 0, 0, 1}, Bytes{224, 0, 0, 2}, Bytes{224, 0, 0, 22}, peer_});
    return frame(to == peer_ ? peer_mac_ : group_mac(to), mac_, 0x0800,
                 ipv4(own_, to, 2, summed(message, 2), 0, {0x94, 4, 0, 0}));
  }
  Bytes mld() {
    const uint8_t kind = random_.one_of<uint8_t>({130, 131, 132, 143});
    Bytes group{0xFF, static_cast<uint8_t>(random_.one_of({2, 5, 8})), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                0,    static_cast<uint8_t>(random_.below(8))};
    Bytes message{kind, 0, 0, 0};
    message = kind == 143 ? message + Bytes{0, 0, 0, 1, static_cast<uint8_t>(1 + random_.below(6)), 0, 0, 0} + group
                          : message + Bytes(4) + group;
    const Bytes to = random_.one_of({group, Bytes{0xFF, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1},
                                     Bytes{0xFF, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 22}});
    message = summed(message, 2, own6() + to + words(static_cast<uint32_t>(message.size())) + words(58));
    return frame(Bytes{0x33, 0x33} + Bytes(to.end() - 4, to.end()), mac_, 0x86DD,
                 ipv6(own6(), to, 0, Bytes{58, 0, 5, 2, 0, 0, 1, 0} + message, 1));
  }
  Bytes version6() {
    const Bytes peer = random_.one_of({link_local(peer_mac_), Bytes{0xFF, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1},
                                       Bytes{0xFF, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xFF, 0, 0, 1}});
    const Bytes own = random_.chance(80) ? own6() : link_local(peer_mac_);
    const uint8_t next = random_.one_of<uint8_t>({58, 58, 58, 17, 6, 0, 43, 44, 60, 59});
    Bytes message = random_.bytes(24 + random_.below(40));
    if (next == 58) {
      message[0] = random_.one_of<uint8_t>({1, 2, 3, 4, 128, 129, 133, 134, 135, 136, 137, 139});
      message[1] = message[2] = message[3] = 0;
      message = summed(message, 2, own + peer + words(static_cast<uint32_t>(message.size())) + words(58));
    } else if (next == 17) {
      message = udp(kFirstSamplePort, random_.next());
    }
    return frame(random_.one_of({peer_mac_, Bytes{0x33, 0x33, 0, 0, 0, 1}, Bytes{0x33, 0x33, 0xFF, 0, 0, 1}, kAll}),
                 mac_, 0x86DD, ipv6(own, peer, next, message, 255));
  }
  Bytes broadcast() {
    const Bytes to = random_.one_of({kFour, Bytes{10, 88, 0, 255}, peer_});
    const uint32_t port = random_.one_of({67u, 68u, 137u, 138u, 5000u, 47808u, 44818u, 34964u, 7u, 9u});
    Bytes payload = random_.bytes(32);
    if (port == 67 || port == 68) {
      payload = Bytes{static_cast<uint8_t>(port == 67 ? 1 : 2), 1, 6, 0} + random_.bytes(24) + mac_ + Bytes(202) +
                words(0x63825363) + Bytes{53, 1, static_cast<uint8_t>(1 + random_.below(8)), 255};
    }
    return frame(
        random_.one_of({kAll, kAll, peer_mac_}), mac_, 0x0800,
        ipv4(random_.one_of({own_, Bytes(4)}), to, 17, udp(port ^ (port == 67 || port == 68 ? 3 : 0), port, payload)));
  }
  Bytes multicast() {
    const Bytes group =
        random_.one_of({Bytes{224, 0, 0, 1}, Bytes{224, 0, 0, 251}, Bytes{239, 255, 255, 250},
                        Bytes{239, 1, 1, static_cast<uint8_t>(random_.below(8))}, Bytes{224, 0, 1, 129}});
    return frame(group_mac(group), mac_, 0x0800,
                 ipv4(own_, group, 17, udp(kFirstSamplePort, random_.one_of({5353u, 1900u, 319u, 5000u}))));
  }
  Bytes bridge() {
    // STP, slow protocols, LLDP, CDP, PAUSE, EAPOL and what else is meant for bridges.
    switch (random_.below(6)) {
      case 0:
        return frame(
            {1, 0x80, 0xC2, 0, 0, 0}, mac_, 38,
            Bytes{0x42, 0x42, 3, 0, 0, random_.one_of<uint8_t>({0, 2, 3}), random_.one_of<uint8_t>({0, 2, 0x80})} +
                random_.bytes(32));
      case 1:
        return frame({1, 0x80, 0xC2, 0, 0, 14}, mac_, 0x88CC,
                     Bytes{2, 7, 4} + mac_ + Bytes{4, 3, 7, '1', '2', 6, 2, 0, 120, 0, 0});
      case 2:
        return frame({1, 0x80, 0xC2, 0, 0, 2}, mac_, 0x8809, Bytes{1, 1} + random_.bytes(108));
      case 3:
        return frame({1, 0, 0x0C, 0xCC, 0xCC, 0xCC}, mac_, 40,
                     Bytes{0xAA, 0xAA, 3, 0, 0, 12, 0x20, 0} + random_.bytes(32));
      case 4:
        return frame(random_.one_of({Bytes{1, 0x80, 0xC2, 0, 0, 1}, peer_mac_}), mac_, 0x8808,
                     word(1) + random_.bytes(44));
      default:
        return frame({1, 0x80, 0xC2, 0, 0, static_cast<uint8_t>(random_.below(48))}, mac_,
                     random_.one_of({0x888Eu, 0x22F0u, 0x88F5u, 0x88F7u}), random_.bytes(46));
    }
  }
  Bytes ether_type() {
    return frame(random_.one_of({peer_mac_, kAll, any_mac()}), mac_,
                 random_.one_of({0x0842u, 0x22EAu, 0x6003u, 0x8035u, 0x80F3u, 0x8137u,       0x8847u,
                                 0x8863u, 0x8864u, 0x8892u, 0x88A4u, 0x88B5u, 0x88B8u,       0x88BAu,
                                 0x88E5u, 0x88F7u, 0x8906u, 0x9000u, 0xFFFFu, random_.next()}),
                 (random_.chance(30) ? word(0xFEFC + random_.below(4)) : Bytes{}) + random_.bytes(random_.below(200)));
  }
  Bytes runt() {
    Bytes whole = random_.one_of<Bytes>({udp_answer(), tcp(), arp(), tagged(), version6(), igmp()});
    whole.resize(14 + random_.below(static_cast<uint32_t>(whole.size() - 13)));
    return whole;
  }
  Bytes jumbo() {
    return frame(random_.one_of({peer_mac_, kAll}), mac_, 0x0800,
                 ipv4(own_, peer_, 17, udp(kFirstSamplePort, heard_port(), random_.bytes(1473 + random_.below(7500)))));
  }
  Bytes wrong_header() {
    Bytes packet = ipv4(own_, peer_, random_.one_of<uint8_t>({17, 6, 1, 2, 4, 41, 47, 50, 51, 89, 112, 132, 255}),
                        udp(kFirstSamplePort, heard_port()), 0,
                        random_.chance(50) ? Bytes{}
                                           : random_.one_of<Bytes>({{7, 7, 4, 0, 0, 0, 0, 0},
                                                                    {0x83, 7, 4, 10, 88, 0, 1, 0},
                                                                    {0x44, 8, 5, 0, 0, 0, 0, 0},
                                                                    {1, 1, 1, 0}}));
    if (random_.chance(60))
      packet[random_.one_of<size_t>({0, 2, 3, 6, 8, 10, 11, 24, 25})] = static_cast<uint8_t>(random_.next());
    return frame(peer_mac_, mac_, 0x0800, packet);
  }
  Bytes noise() {
    return random_.one_of({peer_mac_, peer_mac_, kAll, any_mac()}) + mac_ + random_.bytes(2 + random_.below(1400));
  }
  // Behind a virtio-net header of the sender's choice: the card is asked to cut it, or to sum it.
  Bytes offloaded() {
    VnetHeader head;
    const bool is_tcp = random_.chance(50);
    const Bytes inner =
        is_tcp ? to_peer(6, tcp_segment(heard_port(), 1500 + random_.below(12000)))
               : to_peer(17, udp(kFirstSamplePort, heard_port(), random_.bytes(1500 + random_.below(12000))));
    head.gso_type = is_tcp ? random_.one_of<uint8_t>({kGsoTcp4, kGsoTcp4 | kGsoEcn})
                           : random_.one_of<uint8_t>({kGsoUdp, kGsoUdpSegments});
    head.hdr_len = static_cast<uint16_t>(is_tcp ? 54 : 42);
    head.gso_size = static_cast<uint16_t>(500 + random_.below(960));
    head.csum_offset = static_cast<uint16_t>(is_tcp ? 16 : 6);
    const auto* raw = reinterpret_cast<const uint8_t*>(&head);
    return Bytes(raw, raw + sizeof head) + inner;
  }

 private:
  static Bytes address(const char* text) {
    Bytes made(4);
    ::inet_pton(AF_INET, text, made.data());
    return made;
  }
  const Bytes& heard() { return heard_[random_.below(static_cast<uint32_t>(heard_.size()))]; }
  uint32_t heard_port() {
    return heard_.empty() ? random_.next() : static_cast<uint32_t>(heard_[0][34] << 8 | heard_[0][35]);
  }
  Bytes other() {
    return Bytes{10, 88, 0,
                 static_cast<uint8_t>(random_.one_of({1, 3, 254, 255, static_cast<int>(random_.below(256))}))};
  }
  Bytes any_mac() { return Bytes{static_cast<uint8_t>(random_.next() & 0xFE)} + random_.bytes(5); }
  static Bytes group_mac(const Bytes& group) {
    return {1, 0, 0x5E, static_cast<uint8_t>(group[1] & 0x7F), group[2], group[3]};
  }
  static Bytes link_local(const Bytes& mac) {
    return {0xFE,   0x80,   0,    0,    0,      0,      0,     0, static_cast<uint8_t>(mac[0] ^ 2),
            mac[1], mac[2], 0xFF, 0xFE, mac[3], mac[4], mac[5]};
  }
  Bytes own6() { return link_local(mac_); }
  static Bytes frame(const Bytes& to, const Bytes& from, uint32_t type, const Bytes& payload) {
    return to + from + word(type) + payload;
  }
  Bytes to_peer(uint8_t protocol, const Bytes& payload) {
    const Bytes to = random_.chance(80) ? peer_mac_ : random_.one_of({kAll, any_mac(), Bytes{1, 0, 0x5E, 0, 0, 1}});
    return frame(to, mac_, 0x0800, ipv4(own_, peer_, protocol, payload));
  }
  Bytes ipv4(const Bytes& from, const Bytes& to, uint8_t protocol, const Bytes& payload, uint32_t fragment = 0,
             const Bytes& options = {}) {
    const size_t head = 20 + options.size();
    return summed(Bytes{static_cast<uint8_t>(0x40 | head / 4), 0} + word(static_cast<uint32_t>(head + payload.size())) +
                      word(random_.next()) + word(fragment) +
                      Bytes{random_.one_of<uint8_t>({64, 64, 1, 255}), protocol, 0, 0} + from +
                      Bytes(to.begin(), to.begin() + 4) + options,
                  10) +
           payload;
  }
  static Bytes ipv6(const Bytes& from, const Bytes& to, uint8_t next, const Bytes& payload, uint8_t hops) {
    return words(6u << 28) + word(static_cast<uint32_t>(payload.size())) + Bytes{next, hops} + from + to + payload;
  }
  Bytes udp(uint32_t from, uint32_t to, const Bytes& payload = {'b', 'i', 't', 's'}) {
    return word(from) + word(to) + word(static_cast<uint32_t>(8 + payload.size())) + word(0) + payload;
  }
  Bytes tcp_segment(uint32_t to, size_t size = 4) {
    return word(kFirstSamplePort + random_.below(kSamplePorts)) + word(to) + words(random_.next()) +
           words(random_.next()) +
           Bytes{0x50, static_cast<uint8_t>(random_.one_of({2u, 0x12u, 0x10u, 0x18u, 4u, 0x14u, 1u, random_.next()})),
                 0xFF, 0xFF,
                 0,    0,
                 0,    0} +
           random_.bytes(size);
  }

  static inline const Bytes kFour = Bytes(4, 0xFF);
  Random random_;
  const Bytes mac_, peer_mac_, own_, peer_;
  std::vector<Bytes> heard_;
  size_t heard_next_ = 0;
};

// What an ordinary program, or an administrator, of the guest would do; in a process of its own, over and over.
[[noreturn]] void use_the_kernel(const char* own, const char* peer, const char* own_mac, const char* peer_mac,
                                 uint64_t seed) {
  Random random(seed + 1);
  const std::string card = kCard, ip = own, to = peer, mac = own_mac, to_mac = peer_mac;
  const std::vector<std::string> commands = {
      "ping -c 2 -W 1 " + to,
      "ping -c 2 -W 1 -b 255.255.255.255",
      "arping -c 2 -w 2 -I " + card + " " + to,
      "arping -U -c 2 -w 2 -I " + card + " " + to,
      "udhcpc -i " + card + " -n -q -t 2 -T 1 -s /bin/true",
      "traceroute -n -q 1 -w 1 -m 2 " + to,
      "nc -w 1 " + to + " 5000 < /proc/uptime",
      "echo bits | nc -u -w 1 " + to + " 5000",
      "ping6 -c 2 -W 1 ff02::1%" + card,
      "nslookup bits.example " + to,
      "wget -q -T 1 -O /dev/null http://" + to + "/",
      "ntpd -n -q -p " + to + " & sleep 1; kill $!",
      "tftp -g -r bits -l /tmp/bits " + to + " & sleep 1; kill $!",
      "ip addr add " + to + "/24 dev " + card + "; arping -U -c 1 -w 1 -I " + card + " " + to + "; ip addr del " + to +
          "/24 dev " + card,
      "ip link set " + card + " address " + to_mac + "; ping -c 1 -W 1 " + to + "; ip link set " + card + " address " +
          mac,
      "ip link set " + card + " promisc on; ip link set " + card + " mtu 9000; ping -c 1 -W 1 -s 8000 " + to,
      "ip link set " + card + " down; ip link set " + card + " up; ip link set " + card + " mtu 9000",
  };
  for (;;) {
    // The link's being down took it away.
    know(peer, mac_of(peer_mac));
    if (std::system(
            ("( " + commands[random.below(static_cast<uint32_t>(commands.size()))] + " ) >/dev/null 2>&1").c_str()) ==
        -1)
      std::perror("system");
    for (int i = 0; i < 20; ++i) {
      const int type = random.chance(50) ? SOCK_DGRAM : SOCK_STREAM;
      const int fd = ::socket(AF_INET, type | SOCK_NONBLOCK, 0), on = 1;
      ::setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &on, sizeof on);
      ip_mreq group{};
      group.imr_multiaddr.s_addr = htonl(0xEF010100 | random.below(8));
      ::inet_pton(AF_INET, own, &group.imr_interface);
      ::setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &group, sizeof group);  // the kernel says so by IGMP
      ::setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &group.imr_interface, sizeof group.imr_interface);
      const sockaddr_in from = at("0.0.0.0", static_cast<uint16_t>(kFirstSamplePort + random.below(kSamplePorts)));
      if (type == SOCK_STREAM) ::bind(fd, reinterpret_cast<const sockaddr*>(&from), sizeof from);
      const sockaddr_in where =
          at(random.one_of({peer, peer, "255.255.255.255", "10.88.0.255", "224.0.0.1", "239.1.1.1"}),
             static_cast<uint16_t>(random.next()));
      if (::connect(fd, reinterpret_cast<const sockaddr*>(&where), sizeof where) == 0) (void)!::write(fd, "bits", 4);
      ::usleep(20000);
      ::close(fd);
    }
  }
}

int open_raw(bool with_header) {
  const int fd = ::socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, htons(ETH_P_ALL)), on = 1;
  if (with_header && ::setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof on) != 0) std::perror("PACKET_VNET_HDR");
  sockaddr_ll where{};
  where.sll_family = AF_PACKET;
  where.sll_protocol = htons(with_header ? 0 : ETH_P_ALL);
  where.sll_ifindex = static_cast<int>(::if_nametoindex(kCard));
  if (::bind(fd, reinterpret_cast<const sockaddr*>(&where), sizeof where) != 0) std::perror("bind");
  return fd;
}

int intrude(const char* own, const char* peer, const char* peer_mac, double seconds, uint64_t seed) {
  char own_mac[32] = {};
  std::ifstream(std::string("/sys/class/net/") + kCard + "/address").getline(own_mac, sizeof own_mac);
  Frames frames(seed, own, peer, mac_of(own_mac), mac_of(peer_mac));
  struct Kind {
    const char* name;
    Bytes (Frames::*make)();
    uint64_t sent = 0, not_sent = 0;
  };
  Kind kinds[] = {{"UDP answers", &Frames::udp_answer},
                  {"UDP", &Frames::udp_any},
                  {"TCP", &Frames::tcp},
                  {"ICMP", &Frames::icmp},
                  {"ICMP errors", &Frames::icmp_error},
                  {"ARP", &Frames::arp},
                  {"fragments", &Frames::fragment},
                  {"turned samples", &Frames::turned},
                  {"repeated samples", &Frames::repeated},
                  {"forged MAC", &Frames::forged_mac},
                  {"forged address", &Frames::forged_address},
                  {"VLAN tags", &Frames::tagged},
                  {"IGMP", &Frames::igmp},
                  {"MLD", &Frames::mld},
                  {"IPv6", &Frames::version6},
                  {"broadcast and DHCP", &Frames::broadcast},
                  {"multicast", &Frames::multicast},
                  {"STP, LLDP, LACP, PAUSE", &Frames::bridge},
                  {"Ethernet types", &Frames::ether_type},
                  {"runts", &Frames::runt},
                  {"jumbo", &Frames::jumbo},
                  {"wrong headers", &Frames::wrong_header},
                  {"noise", &Frames::noise},
                  {"offloads", &Frames::offloaded}};
  const int raw = open_raw(false), with_header = open_raw(true);
  const Bytes sender = mac_of(peer_mac);
  uint64_t heard = 0;
  const auto listen = [&] {
    uint8_t buffer[2048];
    for (ssize_t size; (size = ::recv(raw, buffer, sizeof buffer, 0)) > 0;) {
      if (size < 50 || std::memcmp(buffer + 6, sender.data(), 6) != 0 || buffer[12] != 8 || buffer[13] != 0 ||
          buffer[23] != 17)
        continue;
      if ((buffer[36] << 8 | buffer[37]) != kFirstSamplePort) continue;
      ++heard;
      frames.hear(Bytes(buffer, buffer + size));
    }
  };
  while (heard == 0) {
    listen();
    ::usleep(10000);
  }
  std::printf("INTRUDER: begins\n");
  const pid_t child = ::fork();
  if (child == 0) {
    ::setpgid(0, 0);
    use_the_kernel(own, peer, own_mac, peer_mac, seed);
  }
  const double end = now() + seconds;
  for (unsigned round = 0; round < kLeastRounds || now() < end; ++round) {
    for (Kind& kind : kinds) {
      const Bytes frame = (frames.*kind.make)();
      const int fd = kind.make == &Frames::offloaded ? with_header : raw;
      ++(::send(fd, frame.data(), frame.size(), 0) > 0 ? kind.sent : kind.not_sent);
      listen();
    }
    ::usleep(30000);
  }
  ::kill(-child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  uint64_t sum = 0;
  for (const Kind& kind : kinds) {
    std::printf("INTRUDER: %llu sent, %llu not: %s\n", static_cast<unsigned long long>(kind.sent),
                static_cast<unsigned long long>(kind.not_sent), kind.name);
    sum += kind.sent;
  }
  std::printf("INTRUDER: %llu raw frames sent, %llu left the card\nINTRUDER: %llu samples heard\nINTRUDER DONE\n",
              static_cast<unsigned long long>(sum), static_cast<unsigned long long>(counted("tx_packets")),
              static_cast<unsigned long long>(heard));
  return 0;
}

}  // namespace

int main(int count, char** arguments) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  const std::string what = count > 1 ? arguments[1] : "";
  if (what == "sample" && count == 5)
    sample(arguments[2], mac_of(arguments[3]), static_cast<uint16_t>(std::atoi(arguments[4])));
  if (what == "try" && count == 7)
    return intrude(arguments[2], arguments[3], arguments[4], std::atof(arguments[5]),
                   std::strtoull(arguments[6], nullptr, 10));
  std::fprintf(stderr, "usage: see the top of intruder.cc\n");
  return 2;
}
