#include <fstream>
#include <sstream>

#include <gtest/gtest.h>

#include "plant/compile.h"
#include "plant/explain.h"
#include "plant/graph.h"
#include "plant/model.h"

namespace bulkhead::plant {
namespace {

std::string tank_text() {
  std::ifstream file(BULKHEAD_SOURCE_DIR "/tests/system/plants/tank.yaml");
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

Plant tank() {
  auto plant = parse_plant(tank_text(), "tank.yaml", "/plants");
  EXPECT_TRUE(plant) << plant.error().message;
  return plant ? *plant : Plant{};
}

// The complaint about the tank with one piece of text replaced by another.
std::string complaint(std::string_view from, std::string_view to) {
  std::string text = tank_text();
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  text.replace(at, from.size(), to);
  const auto plant = parse_plant(text, "tank.yaml", "");
  return plant ? std::string("fine") : plant.error().message;
}

TEST(Plant, IsReadWithItsPlaces) {
  const Plant plant = tank();
  EXPECT_EQ(plant.name, "tank");
  ASSERT_EQ(plant.machines.size(), 3u);
  EXPECT_EQ(plant.machines[0].arguments, (std::vector<std::string>{"--kernel", "/plants/vmlinuz"}));
  EXPECT_EQ(plant.machines[0].ready.kind, ProbeConfig::Kind::kModbus);
  EXPECT_EQ(plant.machines[1].after[0].name, "plc1");
  EXPECT_EQ(plant.group_of(plant.machines[2].cards[0]).policy.rate_bytes_a_second, 12'500'000u);
  EXPECT_EQ(plant.switches[0].probe_address->to_string(), "10.77.0.254");
  const auto& conduit = plant.conduits[0].conduit;
  EXPECT_EQ(plant.conduits[0].line, 21u);
  EXPECT_EQ(conduit.refuse, net::policy::Refuse::kAnswer);
  ASSERT_EQ(conduit.modbus->rules.size(), 1u);
  EXPECT_EQ(conduit.modbus->rules[0].addresses, (net::inspect::AddressRange{0, 99}));
}

std::string mirrored(const std::string& mirrors) {
  return "kind: Plant\nmetadata: {name: p}\nspec:\n  switches: {wire: {capture: all.pcapng, captured: floor}}\n"
         "  zones: {floor: {}, office: {}}\n  groups: {bridge: {zone: floor}}\n  machines:\n"
         "    plc: {kernel: k, nics: [{zone: floor}, {group: bridge}]}\n"
         "    ids: {kernel: k, nics: [{zone: office}]}\n  mirrors:\n" +
         mirrors;
}

TEST(Plant, AMirrorNamesZonesGroupsMachinesAndCards) {
  const auto plant =
      parse_plant(mirrored("    one: {from: [floor], to: ids}\n    two: {from: [bridge, plc], pcapng: p, "
                           "size: 1M}\n    three: {from: plc.1, pcapng: /q}\n"),
                  "plant.yaml", "/plants");
  ASSERT_TRUE(plant) << plant.error().message;
  const std::vector<MirrorPlan> mirrors = mirrors_of(*plant, "wire");
  ASSERT_EQ(mirrors.size(), 4u);
  using Names = std::vector<std::string>;
  EXPECT_EQ(mirrors[0].capture, "/plants/all.pcapng");
  EXPECT_EQ(mirrors[0].groups, (Names{"bridge", "floor"}));
  EXPECT_EQ(mirrors[1].target, "ids.0");
  EXPECT_EQ(mirrors[1].groups, (Names{"bridge", "floor"}));
  EXPECT_EQ(mirrors[2].groups, (Names{"bridge"}));
  EXPECT_EQ(mirrors[2].ports, (Names{"plc.0", "plc.1"}));
  EXPECT_EQ(mirrors[2].capture_bytes, uint64_t{1} << 20);
  EXPECT_EQ(mirrors[3].ports, (Names{"plc.1"}));
  const auto wrong = [](const std::string& mirrors_text) {
    const auto made = parse_plant(mirrored(mirrors_text), "plant.yaml", "");
    return made ? std::string("fine") : made.error().message;
  };
  EXPECT_EQ(wrong("    one: {from: roof, to: ids}\n"),
            "plant.yaml:11: spec.mirrors.one.from: nothing on switch 'wire' is called 'roof'; allowed: zones, groups, "
            "machines, their cards like plc1.0, links");
  EXPECT_EQ(wrong("    one: {from: floor}\n"), "plant.yaml:11: spec.mirrors.one: allowed: either to or pcapng");
  EXPECT_EQ(
      wrong("    one: {to: plc}\n"),
      "plant.yaml:11: spec.mirrors.one.to: 'plc': allowed: a card on switch 'wire', like plc1.0, or a link there");
  EXPECT_EQ(wrong("    one: {from: ids, to: ids.0}\n"),
            "plant.yaml:11: spec.mirrors.one.from: 'ids' is where it goes to");
  EXPECT_EQ(wrong("    one: {to: ids}\n    two: {to: ids.0}\n"),
            "plant.yaml:12: spec.mirrors.two.to: 'ids.0' is that of the mirror in line 11 too");
  EXPECT_EQ(
      wrong("    one: {pcapng: ./all.pcapng}\n"),
      "plant.yaml:11: spec.mirrors.one.pcapng './all.pcapng': 'all.pcapng' is a file of the capture in line 4 too");
  EXPECT_EQ(wrong("    one: {pcapng: p}\n    two: {pcapng: p.1}\n"),
            "plant.yaml:12: spec.mirrors.two.pcapng 'p.1': 'p.1' is a file of the capture in line 11 too");
  EXPECT_EQ(wrong("    one: {pcapng: p.1}\n    two: {pcapng: p}\n"),
            "plant.yaml:12: spec.mirrors.two.pcapng 'p': 'p.1' is a file of the capture in line 11 too");
  EXPECT_EQ(wrong("    one: {pcapng: p, size: 255K}\n"),
            "plant.yaml:11: spec.mirrors.one.size '255K': allowed: 256K and more");
}

TEST(Plant, AGroupSaysWhatItsModeHasAndHowItTags) {
  const auto read = [](std::string_view group) {
    return parse_plant(
        fmt::format("kind: Plant\nmetadata: {{name: p}}\nspec:\n  switches: {{wire: {{}}}}\n  zones: {{floor: "
                    "{{}}}}\n  groups:\n    wide: {{zone: floor, {}}}\n",
                    group),
        "plant.yaml", "");
  };
  const auto wrong = [&](std::string_view group) {
    const auto plant = read(group);
    return plant ? std::string("fine") : plant.error().message;
  };
  const auto plant = read("mode: trunk, vlans: [10, 20-22], native-vlan: 5, tag-protocol: 802.1ad");
  ASSERT_TRUE(plant) << plant.error().message;
  EXPECT_EQ(plant->groups[0].policy.tag_protocol, 0x88A8);
  EXPECT_EQ(plant->groups[0].policy.allowed_vlans.count(), 4u);
  // A zone's own group keeps storms from its neighbours.
  EXPECT_EQ(plant->groups[1].policy.broadcast_frames_a_second, 1'000u);
  EXPECT_EQ(read("mode: trunk, vlans: 10, tag-protocol: 0x8100")->groups[0].policy.tag_protocol, 0x8100);
  EXPECT_EQ(wrong("tag-protocol: 0x9100"),
            "plant.yaml:7: spec.groups.wide.tag-protocol '0x9100': allowed: 0x8100 (802.1q) or 0x88a8 (802.1ad)");
  EXPECT_EQ(wrong("mode: trunk, vlans: 4095"),
            "plant.yaml:7: spec.groups.wide.vlans '4095': allowed: a number or FIRST-LAST, from 1 to 4094");
  EXPECT_EQ(wrong("vlans: 10"),
            "plant.yaml:7: spec.groups.wide: vlans and native-vlan are a trunk's; allowed: mode: trunk, or vlan");
  EXPECT_EQ(wrong("mode: trunk, vlan: 10"),
            "plant.yaml:7: spec.groups.wide.vlan: a trunk has several; allowed: vlans and native-vlan");
  EXPECT_EQ(wrong("mode: trunk"),
            "plant.yaml:7: spec.groups.wide: a trunk that carries nothing; allowed: vlans, native-vlan or both");
}

TEST(Plant, AMachineIsAskedWhereItCanBeReached) {
  const auto read = [](std::string_view group) {
    return parse_plant(
        fmt::format("kind: Plant\nmetadata: {{name: p}}\nspec:\n  switches: {{wire: {{network: "
                    "10.0.0.0/24}}}}\n  zones: {{floor: {{}}}}\n  groups:\n    own: {{zone: floor, {}}}\n"
                    "  machines:\n    plc: {{kernel: k, nics: {{group: own, address: 10.0.0.5}}, ready: "
                    "{{tcp: 502}}}}\n",
                    group),
        "plant.yaml", "");
  };
  const auto asked_in = [&](std::string_view group) {
    const auto plant = read(group);
    if (!plant) return plant.error().message;
    return probe_group_of(*plant, plant->machines[0].cards[0])->policy.name;
  };
  EXPECT_EQ(asked_in("forged-mac: allow"), "floor");
  EXPECT_EQ(asked_in("within-group: deny"), "floor");
  EXPECT_EQ(asked_in("vlan: 20"), "own");
  EXPECT_EQ(asked_in("mode: trunk, native-vlan: 1, vlans: 7"), "floor");
  const std::string complaint =
      "plant.yaml:9: spec.machines.plc.ready: cannot be asked at 10.0.0.5: its group 'own' lets nobody to it without a "
      "tag; allowed: log, exec or a card before it with an address";
  EXPECT_EQ(asked_in("mode: trunk, vlans: 7"), complaint);
  EXPECT_EQ(asked_in("vlan: 20, within-group: deny"), complaint);
}

TEST(Plant, ALinkHasOnlyWhatMeansSomethingThere) {
  const auto complaint_of = [](const std::string& link) {
    const auto plant =
        parse_plant(tank_text() + "\n  links:\n    out: {zone: control, " + link + "}\n", "tank.yaml", "");
    return plant ? std::string("fine") : plant.error().message.substr(plant.error().message.find("spec"));
  };
  EXPECT_EQ(complaint_of("tap: t, mac: '02:00:00:00:00:01'"),
            "spec.links.out.mac: a link has none; allowed: a machine's card");
  EXPECT_EQ(complaint_of("tap: t, address: 10.77.0.99"),
            "spec.links.out.address: only a NAT has one, the guests' gateway");
  EXPECT_EQ(complaint_of("nat: {}, address: 10.77.0.99"), "fine");
}

TEST(Plant, ALineMayBeBadInOneDirectionOnly) {
  const auto read = [](std::string_view faults) {
    return parse_plant(
        fmt::format("kind: Plant\nmetadata: {{name: p}}\nspec:\n  switches: {{wire: {{}}}}\n  zones: {{floor: "
                    "{{}}}}\n  machines:\n    plc: {{kernel: k, nics: {{zone: floor, faults: {}}}}}\n",
                    faults),
        "plant.yaml", "");
  };
  const auto plant = read("{delay: 5ms, out: {cut: true}}");
  ASSERT_TRUE(plant) << plant.error().message;
  const PortPlan port = ports_of(*plant, "wire")[0];
  EXPECT_EQ(port.faults, (net::fault::FaultConfig{.delay_ns = 5'000'000}));
  EXPECT_EQ(port.faults_out, (net::fault::FaultConfig{.delay_ns = 5'000'000, .is_cut = true}));
  const auto both = read("{lost: 1%}");
  ASSERT_TRUE(both);
  EXPECT_EQ(ports_of(*both, "wire")[0].faults_out.lost, 10'000u);
  EXPECT_FALSE(read("{in: {seed: 1}}"));
}

TEST(Plant, ACommandAsksForReadinessWithoutANetwork) {
  constexpr std::string_view kText =
      "kind: Plant\nmetadata: {name: p}\nspec:\n  switches: {wire: {}}\n  zones: {floor: {}}\n  machines:\n"
      "    plc: {kernel: k, nics: {zone: floor}, ready: {exec: test -e /run/up}}\n";
  const auto plant = parse_plant(kText, "plant.yaml", "");
  ASSERT_TRUE(plant) << plant.error().message;
  EXPECT_EQ(plant->machines[0].ready.kind, ProbeConfig::Kind::kExec);
  EXPECT_EQ(plant->machines[0].ready.text, "test -e /run/up");
}

// The tank with a link to other hosts in its control zone.
std::string tunnel_text(const std::string& tunnel) {
  return tank_text() + fmt::format("\n  links:\n    halls:\n      zone: control\n      tunnel: {{{}}}\n", tunnel);
}

TEST(Plant, ReadsATunnelToOtherHosts) {
  constexpr std::string_view kKey = "vRu62YUtgAQ/u8Mj6AvQ2cY84W8xy3VtmIdwXTnjblY=";
  const std::string peers = fmt::format("peers: {{hall2: {{key: {}, address: '192.0.2.2:51820'}}}}", kKey);
  const auto plant = parse_plant(tunnel_text("key: hall1.key, vni: 100, vnis: [10:5010], mtu: 1400, " + peers),
                                 "tank.yaml", "/plants");
  ASSERT_TRUE(plant) << plant.error().message;
  const LinkToOutside& link = plant->links.back();
  EXPECT_EQ(link.kind, LinkToOutside::Kind::kTunnel);
  EXPECT_EQ(link.key_file, "/plants/hall1.key");
  EXPECT_EQ(link.listen.to_string(), "[::]:51820");
  EXPECT_EQ(link.tunnel.path_mtu, 1400);
  EXPECT_EQ(link.tunnel.segments, (std::vector<net::tunnel::Segment>{{0, 100}, {10, 5010}}));
  ASSERT_EQ(link.tunnel.peers.size(), 1u);
  EXPECT_EQ(net::tunnel::key_text(link.tunnel.peers[0].key), kKey);
  EXPECT_EQ(link.tunnel.peers[0].endpoint->to_string(), "192.0.2.2:51820");
  EXPECT_NE(draw_svg(*plant).find("tunnel to hall2"), std::string::npos);
  EXPECT_EQ(tunnel_socket("/run/tank/plant", link), "/run/tank/plant/halls.tunnel.sock");

  const std::pair<std::string, const char*> wrong[] = {
      {"vni: 100, " + peers, "tunnel.key: is missing"},
      {"key: k, " + peers, "0 VNIs: allowed: 1 to 64"},
      {"key: k, vni: 100", "0 peers: allowed: 1 to 32"},
      {"key: k, vni: 16777216, " + peers, "tunnel.vni '16777216'"},
      {"key: k, vnis: [4095:1], " + peers, "tunnel.vnis[0] '4095:1'"},
      {"key: k, vnis: [10:1, 11:1], " + peers, "VLAN 11 with VNI 1: one of them stands twice"},
      {"key: k, vni: 1, mtu: 100, " + peers, "tunnel.mtu '100'"},
      {"key: k, vni: 1, peers: {hall2: {address: '192.0.2.2:1'}}", "tunnel.peers.hall2.key: is missing"},
      {"key: k, vni: 1, peers: {hall2: {key: abc}}", "tunnel.peers.hall2.key 'abc': no key"},
      {"key: k, vni: 1, listen: here, " + peers, "tunnel.listen 'here': allowed: ADDRESS:PORT"},
  };
  for (const auto& [text, what] : wrong) {
    const auto parsed = parse_plant(tunnel_text(text), "tank.yaml", "");
    ASSERT_FALSE(parsed) << text;
    EXPECT_NE(parsed.error().message.find(what), std::string::npos) << parsed.error().message;
  }
  const auto both =
      parse_plant(tank_text() + "\n  links:\n    far: {zone: control, tap: t, nat: {}}\n", "tank.yaml", "");
  ASSERT_FALSE(both);
  EXPECT_NE(both.error().message.find("leads to several places"), std::string::npos);
}

TEST(Plant, PathsCountFromTheFilesDirectory) {
  std::string text = tank_text();
  const std::string line = "kernel: vmlinuz\n      after";
  text.replace(text.find(line), 15,
               "kernel: /boot/vmlinuz\n      disk: [a.img, 'file=b.qcow2,format=qcow2', 'bus=nvme,file=/c.img', "
               "'file=nbd://10.0.0.7/d,format=raw']");
  const auto plant = parse_plant(text, "tank.yaml", "/plants");
  ASSERT_TRUE(plant) << plant.error().message;
  EXPECT_EQ(plant->machines[1].arguments,
            (std::vector<std::string>{"--kernel", "/boot/vmlinuz", "--disk", "/plants/a.img", "--disk",
                                      "file=/plants/b.qcow2,format=qcow2", "--disk", "bus=nvme,file=/c.img", "--disk",
                                      "file=nbd://10.0.0.7/d,format=raw"}));
}

TEST(Plant, NamesFileLineAndValueOfWhatIsWrong) {
  const std::pair<std::pair<const char*, const char*>, const char*> cases[] = {
      {{"kind: Plant", "kind: Garden"}, "tank.yaml:2: kind 'Garden': allowed: Plant"},
      {{"name: tank", "name: Tank"}, "tank.yaml:4: metadata.name 'Tank': no name"},
      {{"network: 10.77.0.0/24", "network: 10.77.0.1/24"}, "tank.yaml:8: spec.switches.plant.network '10.77.0.1/24'"},
      {{"    control: {description", "    control: {colour"},
       "tank.yaml:12: spec.zones.control.colour: unknown key; allowed: description, vlan"},
      {{"zone: office, rate: 100M", "zone: kitchen, rate: 100M"},
       "tank.yaml:15: spec.groups.laptops: no zone 'kitchen'; allowed: office, supervision, control, field"},
      {{"rate: 100M", "rate: fast"}, "tank.yaml:15: spec.groups.laptops.rate 'fast': allowed: bits a second"},
      {{"laptops: {zone", "control: {zone"}, "tank.yaml:15: spec.groups.control: a zone has this name"},
      {{"plcs: 10.77.0.16/28", "plcs: 10.77.0.17/28"}, "tank.yaml:17: spec.addresses.plcs '10.77.0.17/28'"},
      {{"trends: tcp/8086", "modbus: tcp/8086"}, "tank.yaml:19: spec.services.modbus: a known service"},
      {{"from: supervision\n", "from: control\n"}, "tank.yaml:21: spec.conduits.polling: zone 'control' on both ends"},
      {{"services: modbus\n", "services: ntp\n"},
       "tank.yaml:25: spec.conduits.polling.services: service 'ntp' is not TCP alone"},
      {{"services: syslog", "services: ssh"}, "tank.yaml:30: spec.conduits.telemetry.services: service 'ssh' needs"},
      {{"services: [trends", "services: [trendz"}, "tank.yaml:29: spec.conduits.trending.services: service 'trendz'"},
      {{"to-addresses: plcs", "to-addresses: plc"},
       "tank.yaml:24: spec.conduits.polling.to-addresses: no address set 'plc'; allowed: plcs"},
      {{"units: 1-3", "units: 3-1"}, "tank.yaml:27: spec.conduits.polling.modbus[0].units '3-1'"},
      {{"functions: read", "functions: look"}, "tank.yaml:27: spec.conduits.polling.modbus[0].functions 'look'"},
      {{"address: 10.77.0.17}", "address: 10.78.0.17}"}, "10.78.0.17 lies outside 10.77.0.0/24"},
      {{"address: 10.77.0.50}", "address: 10.77.0.10}"},
       "tank.yaml:43: spec.machines.desk.nics[0].address: 10.77.0.10 stands in line 40 too"},
      {{"address: 10.77.0.50}", "address: 10.77.0.254}"}, "10.77.0.254 asks for readiness"},
      {{"after: plc1", "after: plc2"}, "tank.yaml:38: spec.machines.historian.after: no machine 'plc2'"},
      {{"ready: {modbus", "after: historian\n      ready: {modbus"}, "historian, plc1 wait for each other"},
      {{"ready: {modbus: {unit: 1, address: 0}}", "ready: {modbus: {unit: 256}}"},
       "tank.yaml:35: spec.machines.plc1.ready.modbus.unit '256': allowed: 0 to 255"},
      {{"ready: {modbus: {unit: 1, address: 0}}", "ready: {exec: ''}"},
       "tank.yaml:35: spec.machines.plc1.ready.exec: allowed: a command of 1 to 200 characters"},
      {{"control: {description", "control: {vlan: 7, description"}, "share no VLAN, so nothing can pass"},
      {{"zone: control, address: 10.77.0.17}", "zone: control, group: laptops}"}, "allowed: either zone or group"},
      {{"zone: control, address: 10.77.0.17}", "zone: control, model: ne2000}"},
       "spec.machines.plc1.nics.model 'ne2000': allowed: virtio, e1000 or e1000e"},
      {{"kernel: vmlinuz\n      nics: {zone: c", "cpus: 1\n      nics: {zone: c"}, "says not what runs"},
      {{"  zones:", "  zones:\n    office: {}"}, "tank.yaml:11: spec.zones.office: stands twice"},
      {{"  zones:", "  zones: ["}, "not YAML"},
  };
  for (const auto& [change, wanted] : cases) {
    const std::string message = complaint(change.first, change.second);
    EXPECT_NE(message.find(wanted), std::string::npos) << change.second << "\n  " << message;
    EXPECT_TRUE(message.starts_with("tank.yaml:")) << message;
  }
}

TEST(Plant, HasPortsWithAddressesThatStay) {
  const auto ports = ports_of(tank(), "plant");
  ASSERT_EQ(ports.size(), 3u);
  EXPECT_EQ(ports[0].name, "plc1.0");
  EXPECT_EQ(ports[2].group, "laptops");
  EXPECT_EQ(ports[2].zone, "office");
  EXPECT_EQ(ports[0].port.mac, ports_of(tank(), "plant")[0].port.mac);
  EXPECT_NE(ports[0].port.mac, ports[1].port.mac);
  EXPECT_EQ(ports[0].port.mac->bytes[0] & 3, 2);
}

TEST(Explain, SaysWhichRuleDecides) {
  const Plant plant = tank();
  const auto ask = [&](const char* from, const char* to, const char* service, const char* modbus = "") {
    auto explained = explain(plant, {.from = from, .to = to, .service = service, .modbus = modbus});
    constexpr std::array kWords = {"false", "some", "true"};
    return explained
               ? fmt::format("{} {}", kWords[static_cast<size_t>(explained->passes)], fmt::join(explained->lines, "|"))
               : explained.error().message;
  };
  EXPECT_NE(ask("historian", "plc1", "tcp/502", "write").find("false historian.0 (supervision, 10.77.0.10) -> plc1.0"),
            std::string::npos);
  EXPECT_NE(ask("historian", "plc1", "modbus", "write").find("refused: unit or function not allowed"),
            std::string::npos);
  EXPECT_NE(ask("historian", "plc1", "modbus", "read").find("conduit 'polling': modbus, tank.yaml:21"),
            std::string::npos);
  EXPECT_TRUE(ask("historian", "plc1", "modbus", "read").starts_with("true"));
  EXPECT_TRUE(ask("desk", "plc1", "modbus").starts_with("false"));
  EXPECT_TRUE(ask("plc1", "historian", "modbus").starts_with("false"));
  EXPECT_TRUE(ask("desk", "historian", "trends").starts_with("true"));
  EXPECT_TRUE(ask("field", "supervision", "syslog").starts_with("true"));
  EXPECT_TRUE(ask("supervision", "field", "syslog").starts_with("false"));
  EXPECT_TRUE(ask("nobody", "plc1", "modbus").starts_with("--from 'nobody'"));
  EXPECT_TRUE(ask("desk", "plc1", "modbux").starts_with("service 'modbux'"));
}

// What a link and a zone send has any address; ports of one question may have several answers.
TEST(Explain, SaysWhatPassesOnlyWithSomeAddressesOrPorts) {
  const Plant plant = parse_plant(R"(
kind: Plant
metadata: {name: p}
spec:
  switches: {s: {network: 10.77.0.0/24}}
  zones: {dmz: {}, supervision: {}, control: {}}
  addresses: {gateway: 10.77.0.1/32, operator: 10.77.0.31/32, historian: 10.77.0.30/32}
  services: {samples: udp/5000-5005}
  conduits:
    screens: {from: dmz, to: supervision, from-addresses: gateway, to-addresses: operator, services: http}
    polling: {from: supervision, to: control, from-addresses: historian, services: modbus, modbus: {functions: read}}
    operating: {from: supervision, to: control, from-addresses: operator, services: modbus}
    sampling: {from: control, to: supervision, services: samples}
  links: {browser: {zone: dmz, nat: {}}}
  machines:
    hmi: {kernel: k, nics: {zone: supervision, address: 10.77.0.31}}
    plc: {kernel: k, nics: {zone: control, address: 10.77.0.60}}
)",
                                  "p.yaml", "/plants")
                          .value();
  const auto ask = [&](const char* from, const char* to, const char* service, const char* modbus = "") {
    const auto explained = explain(plant, {.from = from, .to = to, .service = service, .modbus = modbus}).value();
    constexpr std::array kWords = {"nothing", "some", "everything"};
    return fmt::format("{}: {}", kWords[static_cast<size_t>(explained.passes)], fmt::join(explained.lines, "|"));
  };
  EXPECT_EQ(ask("browser", "hmi", "http"),
            "some: browser (dmz) -> hmi.0 (supervision, 10.77.0.31) tcp/80: passes from addresses 'gateway': conduit "
            "'screens': http, p.yaml:10|browser (dmz) -> hmi.0 (supervision, 10.77.0.31) tcp/80: dropped with other "
            "addresses: no conduit names it");
  EXPECT_EQ(ask("supervision", "control", "modbus"),
            "some: supervision (supervision) -> control (control) tcp/502: passes from addresses 'historian': conduit "
            "'polling': modbus, p.yaml:11|supervision (supervision) -> control (control) tcp/502: passes from "
            "addresses 'operator': conduit 'operating': modbus, p.yaml:12|supervision (supervision) -> control "
            "(control) tcp/502: dropped with other addresses: no conduit names it");
  EXPECT_TRUE(ask("hmi", "plc", "modbus", "write").starts_with("everything: "));
  EXPECT_TRUE(ask("browser", "plc", "http").starts_with("nothing: "));
  EXPECT_TRUE(ask("plc", "hmi", "udp/5000-5005").starts_with("everything: "));
  EXPECT_EQ(ask("plc", "hmi", "udp/4999-5010"),
            "some: plc.0 (control, 10.77.0.60) -> hmi.0 (supervision, 10.77.0.31) udp/4999: dropped: no conduit names "
            "it|plc.0 (control, 10.77.0.60) -> hmi.0 (supervision, 10.77.0.31) udp/5000-5005: passes: conduit "
            "'sampling': samples, p.yaml:13|plc.0 (control, 10.77.0.60) -> hmi.0 (supervision, 10.77.0.31) "
            "udp/5006-5010: dropped: no conduit names it");
}

TEST(Graph, ShowsEverythingAndKeepsForeignTextAsText) {
  const Plant plant = tank();
  const std::string svg = draw_svg(plant);
  for (const char* wanted :
       {"office", "historian  10.77.0.10", "polling: modbus (inspected)", "(one way)", "[laptops]"}) {
    EXPECT_NE(svg.find(wanted), std::string::npos) << wanted;
  }
  Plant hostile = plant;
  hostile.zones[0].description = "<script>&\"'";
  EXPECT_EQ(draw_svg(hostile).find("<script>"), std::string::npos);
  EXPECT_TRUE(draw_svg(Plant{}).ends_with("</svg>\n"));
}

}  // namespace
}  // namespace bulkhead::plant
