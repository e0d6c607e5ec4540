#include "vmm/config/config.h"

#include <fstream>

#include <gtest/gtest.h>

#include "vmm/config/keys.h"
#include "vmm/config/values.h"

namespace bulkhead::vmm {
namespace {

TEST(Config, ReadsEveryKey) {
  const auto config = parse_config(R"(
kind: VirtualMachine
metadata:
  name: plc-gateway
  uuid: 123e4567-e89b-12d3-a456-426614174000
spec:
  cpus: 4
  cpu-model: x86-64-v2
  memory: 2G
  engine: soft
  boot:
    kernel: vmlinuz
    initrd: /boot/initrd.img
    cmdline: console=ttyS0 panic=-1
    protocol: pvh
    modules: ["a.elf --fast x", b.bin]
  disks:
    - root.img
    - data.img,ro
    - file: log.img
      read-only: yes
      serial: LOG-1
  serial: [stdio, "file:boot.log"]
  console: pty
  on-reset: end
  debug-exit: true
)",
                                   "vm.yaml", "/vms");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->name.value, "plc-gateway");
  EXPECT_EQ(config->uuid.value, "123e4567-e89b-12d3-a456-426614174000");
  EXPECT_EQ(config->cpus.value, 4u);
  EXPECT_EQ(config->cpu_model.value, "x86-64-v2");
  EXPECT_EQ(config->memory_bytes.value, 2ull << 30);
  EXPECT_EQ(config->memory_bytes.place, "vm.yaml:9: spec.memory");
  EXPECT_EQ(config->engine.value, EngineName::kSoft);
  EXPECT_EQ(config->kernel.value, "/vms/vmlinuz");
  EXPECT_EQ(config->initrd.value, "/boot/initrd.img");
  EXPECT_EQ(config->command_line.value, "console=ttyS0 panic=-1");
  EXPECT_EQ(config->boot_protocol.value, "pvh");
  ASSERT_EQ(config->modules.size(), 2u);
  EXPECT_EQ(config->modules[0].value.path, "/vms/a.elf");
  EXPECT_EQ(config->modules[0].value.command_line, "--fast x");
  ASSERT_EQ(config->disks.size(), 3u);
  EXPECT_FALSE(config->disks[0].value.read_only);
  EXPECT_EQ(config->disks[1].value.path, "/vms/data.img");
  EXPECT_TRUE(config->disks[1].value.read_only);
  EXPECT_TRUE(config->disks[2].value.read_only);
  EXPECT_EQ(config->disks[2].value.serial, "LOG-1");
  ASSERT_EQ(config->serial_lines.size(), 2u);
  EXPECT_EQ(console::to_string(config->serial_lines[1].value), "file:/vms/boot.log");
  EXPECT_EQ(console::to_string(config->virtio_console.value), "pty");
  EXPECT_FALSE(config->reboot.value);
  EXPECT_TRUE(config->debug_exit.value);
}

TEST(Config, FlagsReplaceWhatTheFileGave) {
  auto config = parse_config("kind: VirtualMachine\nspec: {memory: 1G, disks: [a, b]}", "vm.yaml", "/vms").value();
  ASSERT_TRUE(set_value(config, "spec.memory", "64M", "--memory"));
  ASSERT_TRUE(set_list(config, "spec.disks", {"c,ro"}, "--disk"));
  EXPECT_EQ(config.memory_bytes.value, 64u << 20);
  ASSERT_EQ(config.disks.size(), 1u);
  EXPECT_EQ(config.disks[0].value.path, "c");
  EXPECT_EQ(config.disks[0].value.format, "");
  ASSERT_TRUE(set_list(config, "spec.disks", {"file=d,format=qcow2,readonly,serial=S1,cache=writethrough"}, "--disk"));
  const DiskConfig& disk = config.disks[0].value;
  EXPECT_EQ(disk.path + " " + disk.format + " " + disk.serial, "d qcow2 S1");
  EXPECT_TRUE(disk.read_only);
  EXPECT_EQ(disk.cache, DiskCache::kWritethrough);
  EXPECT_EQ(disk.bus, machine::DiskBus::kVirtio);
  ASSERT_TRUE(set_list(config, "spec.disks", {"file=d,bus=nvme"}, "--disk"));
  EXPECT_EQ(config.disks[0].value.bus, machine::DiskBus::kNvme);
  EXPECT_EQ(set_list(config, "spec.disks", {"file=d,bus=ide"}, "--disk").error().message,
            "--disk 'file=d,bus=ide': bus=ide: allowed: virtio, nvme or sata");
  ASSERT_TRUE(set_list(config, "spec.cdroms", {"cd.iso"}, "--cdrom"));
  ASSERT_TRUE(set_list(config, "spec.disks", {"file=d,bus=sata"}, "--disk"));
  ASSERT_EQ(config.disks.size(), 2u);
  EXPECT_EQ(config.disks[0].value.medium, machine::DiskMedium::kCdrom);
  EXPECT_TRUE(config.disks[0].value.read_only);
  EXPECT_EQ(config.disks[1].value.bus, machine::DiskBus::kSata);
  EXPECT_EQ(
      set_list(config, "spec.disks", {"file=d,format=floppy"}, "--disk").error().message,
      "--disk 'file=d,format=floppy': format=floppy: format 'floppy': unknown; there are raw, qcow2, vhd, vhdx, vmdk, "
      "luks");
  ASSERT_TRUE(set_list(config, "spec.disks", {"file=d,encrypt=key"}, "--disk"));
  EXPECT_EQ(config.disks[1].value.secret, "key");
  EXPECT_EQ(set_list(config, "spec.disks", {"file=d,encrypt="}, "--disk").error().message,
            "--disk 'file=d,encrypt=': encrypt=: names no file with a secret");
  ASSERT_TRUE(set_list(config, "spec.disks", {"file=d,fault=seed:7;torn:0.1%,ro"}, "--disk"));
  EXPECT_EQ(config.disks[1].value.faults, (block::DiskFaults{.seed = 7, .torn = 1000}));
  EXPECT_EQ(set_list(config, "spec.disks", {"file=d,fault=torn:2"}, "--disk").error().message,
            "--disk 'file=d,fault=torn:2': fault=torn:2: torn:2: allowed: 0% to 100%, with at most four decimals");
  ASSERT_TRUE(set_list(config, "spec.disks", {"d"}, "--disk"));
  EXPECT_EQ(set_list(config, "spec.disks", {"file=d,ro,ro"}, "--disk").error().message,
            "--disk 'file=d,ro,ro': read-only stands twice");
}

struct WrongFile {
  const char* text;
  const char* message;
};

TEST(Config, NamesPlaceKeyValueAndWhatIsAllowedInOneLine) {
  const WrongFile cases[] = {
      {"", "vm.yaml:1: empty; allowed: kind, metadata and spec"},
      {"- a", "vm.yaml:1: not a map; allowed: kind, metadata and spec"},
      {"spec: {cpus: 1}", "vm.yaml:1: kind is missing; allowed: kind: VirtualMachine"},
      {"kind: Pod", "vm.yaml:1: kind 'Pod': allowed: VirtualMachine"},
      {"kind: VirtualMachine\nsepc:\n  cpus: 1", "vm.yaml:2: sepc: unknown key; allowed: kind, metadata, spec"},
      {"kind: VirtualMachine\nspec:\n  boot:\n    kernal: x",
       "vm.yaml:4: spec.boot.kernal: unknown key; allowed: cmdline, initrd, kernel, modules, protocol"},
      {"kind: VirtualMachine\nspec: 5",
       "vm.yaml:2: spec: not a map; allowed: boot, cdroms, code-cache, console, cpu-model, cpus, debug-exit, "
       "deterministic, disk-groups, disks, engine, jit, memory, nics, on-reset, seed, serial"},
      {"kind: VirtualMachine\nspec:\n  cpus: 1\n  cpus: 2", "vm.yaml:4: spec.cpus: stands twice"},
      {"kind: VirtualMachine\nspec:\n  cpus:", "vm.yaml:3: spec.cpus: has no value"},
      {"kind: VirtualMachine\nspec:\n  cpus: [1]", "vm.yaml:3: spec.cpus: not a single value"},
      {"kind: VirtualMachine\nspec:\n  cpus: 17", "vm.yaml:3: spec.cpus '17': allowed: a whole number from 1 to 16"},
      {"kind: VirtualMachine\nspec:\n  cpus: two", "vm.yaml:3: spec.cpus 'two': allowed: a whole number from 1 to 16"},
      {"kind: VirtualMachine\nspec:\n  memory: 12Q",
       "vm.yaml:3: spec.memory '12Q': not a size; allowed: a whole number and K, M, G or T, like 512M or 2G"},
      {"kind: VirtualMachine\nspec:\n  memory: 8M", "vm.yaml:3: spec.memory '8M': allowed: whole MiB from 16M to 1T"},
      {"kind: VirtualMachine\nspec:\n  memory: 99999999999G",
       "vm.yaml:3: spec.memory '99999999999G': larger than 64 bits hold"},
      {"kind: VirtualMachine\nspec:\n  code-cache: 512K",
       "vm.yaml:3: spec.code-cache '512K': allowed: whole MiB from 1M to 1G"},
      {"kind: VirtualMachine\nspec:\n  engine: tcg", "vm.yaml:3: spec.engine 'tcg': allowed: auto, kvm or soft"},
      {"kind: VirtualMachine\nspec:\n  cpu-model: core2",
       "vm.yaml:3: spec.cpu-model 'core2': allowed: x86-64-v1, x86-64-v2, x86-64-v3, host"},
      {"kind: VirtualMachine\nspec:\n  boot: {protocol: efi}",
       "vm.yaml:3: spec.boot.protocol 'efi': allowed: auto, linux64, linux32, pvh, multiboot"},
      {"kind: VirtualMachine\nspec:\n  serial:\n    - stdio\n    - tcp:1",
       "vm.yaml:5: spec.serial[1] 'tcp:1': not a serial back end; allowed: stdio, pty, null, file:PATH or "
       "socket:PATH"},
      {"kind: VirtualMachine\nspec:\n  disks:\n    - {path: a}",
       "vm.yaml:4: spec.disks[0].path: unknown key; allowed: bps, bps-burst, bus, cache, controller, encrypt, fault, "
       "file, filters, fixed-buffers, "
       "format, group, "
       "iops, iops-burst, on-error, queues, read-only, serial"},
      {"kind: VirtualMachine\nspec:\n  disks:\n    - {read-only: true}", "vm.yaml:4: spec.disks[0]: file is missing"},
      {"kind: VirtualMachine\nspec:\n  disks:\n    - {file: a, read-only: maybe}",
       "vm.yaml:4: spec.disks[0].read-only 'maybe': allowed: true or false"},
      {"kind: VirtualMachine\nspec:\n  on-reset: halt", "vm.yaml:3: spec.on-reset 'halt': allowed: reboot or end"},
      {"kind: VirtualMachine\nspec:\n  debug-exit: 3", "vm.yaml:3: spec.debug-exit '3': allowed: true or false"},
      {"kind: VirtualMachine\nmetadata: {name: a b}",
       "vm.yaml:2: metadata.name 'a b': allowed: 1 to 63 letters, digits, '-', '_' and '.'"},
      {"kind: VirtualMachine\nmetadata: {uuid: 1}",
       "vm.yaml:2: metadata.uuid '1': allowed: a UUID like 123e4567-e89b-12d3-a456-426614174000"},
      {"kind: [VirtualMachine", "vm.yaml:1: not YAML: end of sequence flow not found"},
      {"a: 1\n---\nb: 2", "vm.yaml: more than one document"},
  };
  for (const WrongFile& wrong : cases) {
    const auto config = parse_config(wrong.text, "vm.yaml", "");
    ASSERT_FALSE(config) << wrong.text;
    EXPECT_EQ(config.error().message, wrong.message);
    EXPECT_EQ(config.error().message.find('\n'), std::string::npos);
  }
}

TEST(Config, BoundsSizeDepthAndAliases) {
  EXPECT_EQ(parse_config(std::string(300'000, ' '), "vm.yaml", "").error().message,
            "vm.yaml: larger than the 262144 bytes allowed");
  EXPECT_EQ(parse_config("a: " + std::string(40, '[') + std::string(40, ']'), "vm.yaml", "").error().message,
            "vm.yaml:1: more than the 16 levels allowed");
  std::string aliases = "a: &a 1\nb: [";
  for (int i = 0; i < 100; ++i) aliases += "*a, ";
  EXPECT_EQ(parse_config(aliases + "]", "vm.yaml", "").error().message, "vm.yaml:2: more than the 64 aliases allowed");
  EXPECT_FALSE(parse_config(std::string(100'000, '{'), "vm.yaml", ""));
}

TEST(Config, NamesAMissingFileByItsPlace) {
  auto config = parse_config("kind: VirtualMachine\nspec:\n  boot:\n    kernel: none", "vm.yaml", "/nowhere").value();
  EXPECT_EQ(check_config(config).error().message,
            "vm.yaml:4: spec.boot.kernel '/nowhere/none': No such file or directory");
  EXPECT_EQ(check_config(VmConfig{}).error().message,
            "no kernel; allowed: spec.boot.kernel in the VM's file, or --kernel FILE");
  ASSERT_TRUE(set_value(config, "spec.boot.kernel", "/", "--kernel"));
  EXPECT_EQ(check_config(config).error().message, "--kernel '/': is a directory");
  ASSERT_TRUE(set_value(config, "spec.boot.kernel", "/dev/null", "--kernel"));
  ASSERT_TRUE(set_list(config, "spec.disks", {"/nowhere/a.img,ro"}, "--disk"));
  EXPECT_EQ(check_config(config).error().message, "--disk '/nowhere/a.img': No such file or directory");
}

TEST(Config, RefusesASecondStdio) {
  auto config = parse_config("kind: VirtualMachine\nspec:\n  serial: [stdio, stdio]", "vm.yaml", "").value();
  ASSERT_TRUE(set_value(config, "spec.boot.kernel", "/dev/null", "--kernel"));
  EXPECT_EQ(
      check_config(config).error().message,
      "vm.yaml:3: spec.serial[1] 'stdio': vm.yaml:3: spec.serial[0] has the terminal already; allowed: one stdio");
}

TEST(Config, LimitsAreOfADiskOrOfAGroupOfThem) {
  auto config = parse_config(
                    "kind: VirtualMachine\nspec:\n  disk-groups: ['slow,iops=100,bps=1M,bps-burst=8M']\n"
                    "  disks: [{file: a, group: slow}, 'file=b,iops=50,iops-burst=500,group=slow']",
                    "vm.yaml", "")
                    .value();
  EXPECT_EQ(config.disk_groups[0].value.limits.requests_a_second, 100u);
  EXPECT_EQ(config.disk_groups[0].value.limits.byte_burst, 8u << 20);
  EXPECT_EQ(config.disks[0].value.group, "slow");
  EXPECT_EQ(config.disks[1].value.limits.request_burst, 500u);
  const auto group_error = [&](const char* text) {
    return set_list(config, "spec.disk-groups", {text}, "--disk-group").error().message;
  };
  EXPECT_EQ(group_error("g"), "--disk-group 'g': limits nothing; allowed: NAME,iops=NUMBER,bps=SIZE,...");
  EXPECT_EQ(group_error("g,iops=0"),
            "--disk-group 'g,iops=0': iops=0: allowed: a whole number from 1 to 1099511627776");
  EXPECT_EQ(group_error("g,iops=1,iops=2"), "--disk-group 'g,iops=1,iops=2': iops stands twice");
  EXPECT_EQ(group_error("g,bps=1M,iops-burst=2"), "--disk-group 'g,bps=1M,iops-burst=2': iops-burst without iops");
  EXPECT_EQ(group_error("g,size=1"),
            "--disk-group 'g,size=1': size=1: unknown; allowed: iops, iops-burst, bps, bps-burst");
  const auto disk_error = [&](const char* text) {
    EXPECT_TRUE(set_value(config, "spec.boot.kernel", "/dev/null", "--kernel"));
    EXPECT_TRUE(set_list(config, "spec.disks", {text}, "--disk"));
    return check_config(config).error().message;
  };
  EXPECT_EQ(disk_error("file=/dev/null,group=fast"), "--disk '/dev/null': no disk group 'fast'");
  EXPECT_EQ(disk_error("file=/dev/null,bps-burst=1M"), "--disk '/dev/null': bps-burst without bps");
  EXPECT_EQ(disk_error("file=/dev/null,bus=nvme,queues=2"), "--disk '/dev/null': queues: bus=virtio alone has it");
}

TEST(Config, ADiskHasQueues) {
  auto config =
      parse_config("kind: VirtualMachine\nspec:\n  disks: [a, {file: b, queues: 4}, 'file=c,queues=16']", "vm.yaml", "")
          .value();
  EXPECT_EQ(config.disks[0].value.queue_count, 0);
  EXPECT_EQ(config.disks[1].value.queue_count, 4);
  EXPECT_EQ(config.disks[2].value.queue_count, 16);
  for (const char* wrong : {"0", "17", "x", ""}) {
    EXPECT_EQ(set_list(config, "spec.disks", {fmt::format("file=a,queues={}", wrong)}, "--disk").error().message,
              fmt::format("--disk 'file=a,queues={0}': queues={0}: allowed: a whole number from 1 to 16", wrong));
  }
}

TEST(Config, TraceTakesSeveralNames) {
  const auto trace = parse_trace("mmio,irq").value();
  EXPECT_FALSE(trace.exits);
  EXPECT_TRUE(trace.mmio && trace.irq);
  EXPECT_EQ(parse_trace("mmio,,").error().message, "allowed: exits, mmio, irq, blocks, or several with commas between");
}

TEST(ConfigValues, SizesAreExact) {
  EXPECT_EQ(parse_size("4096").value(), 4096u);
  EXPECT_EQ(parse_size("1K").value(), 1024u);
  EXPECT_EQ(parse_size("3GiB").value(), 3ull << 30);
  EXPECT_EQ(parse_size("1TB").value(), 1ull << 40);
  for (const char* wrong : {"", "M", "-1", "1.5G", "1 G", "0x10", "1GG", "16777216T", "1m"})
    EXPECT_FALSE(parse_size(wrong));
  EXPECT_EQ(format_size(1536ull << 20), "1536M");
}

TEST(Nic, IsReadFromItsWords) {
  const NicConfig nat =
      parse_nic("nat,forward=tcp:127.0.0.1:8080:80,forward=udp:0.0.0.0:53:53,host=on,mac=52:54:00:00:00:01").value();
  EXPECT_EQ(nat.link.kind, net::link::LinkConfig::Kind::kNat);
  EXPECT_EQ(nat.link.forwards.size(), 2u);
  EXPECT_TRUE(nat.link.reach_host);
  EXPECT_EQ(nat.mac->to_string(), "52:54:00:00:00:01");
  const NicConfig tap = parse_nic("tap=plant0,mtu=9000").value();
  EXPECT_EQ(tap.link.tap, "plant0");
  EXPECT_EQ(tap.mtu, 9000);
  EXPECT_FALSE(tap.mac);
  EXPECT_EQ(tap.queue_pairs, 1);
  EXPECT_TRUE(tap.offloads);
  const NicConfig wide = parse_nic("tap=plant0,queues=8,offloads=off").value();
  EXPECT_EQ(wide.queue_pairs, 8);
  EXPECT_FALSE(wide.offloads);
  const NicConfig slow = parse_nic("nat,rate=10M,burst=64K").value();
  EXPECT_EQ(slow.rate.bytes_a_second, 1'250'000u);
  EXPECT_EQ(slow.rate.burst_bytes, 65536u);
  EXPECT_EQ(parse_nic("switch=/run/tank,port=plc1.0,rate=9600").value().rate, (net::link::RateConfig{1200, 0}));
  EXPECT_EQ(parse_nic("isolated").value().link.kind, net::link::LinkConfig::Kind::kIsolated);
  const NicConfig card = parse_nic("switch=plant,vlan=10").value();
  EXPECT_EQ(card.link.fabric, "plant");
  EXPECT_EQ(card.link.vlan, 10);
  EXPECT_EQ(card.model, machine::NicModel::kVirtio);
  const NicConfig old = parse_nic("switch=plant,model=e1000,mtu=9000").value();
  EXPECT_EQ(old.model, machine::NicModel::kE1000);
  EXPECT_EQ(parse_nic("nat,model=e1000e").value().model, machine::NicModel::kE1000e);
  EXPECT_EQ(parse_nic("nat,model=virtio,queues=2").value().model, machine::NicModel::kVirtio);
  for (const char* wrong : {"",
                            "nat,",
                            "nat,model=ne2000",
                            "nat,model=e1000,queues=2",
                            "nat,offloads=off,model=e1000",
                            "nat,model=e1000,model=virtio",
                            "natt",
                            "tap",
                            "tap=",
                            "nat=1",
                            "none=1",
                            "isolated=1",
                            "nat,host=maybe",
                            "none,forward=tcp:127.0.0.1:1:1",
                            "tap=a,host=on",
                            "nat,mtu=9000",
                            "tap=a,mtu=100",
                            "tap=a,queues=0",
                            "tap=a,queues=9",
                            "tap=a,offloads=1.5",
                            "tap=a,mtu=9001",
                            "nat,mac=01:00:00:00:00:00",
                            "nat,mac=00:00:00:00:00:00",
                            "nat,mac=1",
                            "nat,host=on,host=off",
                            "switch=",
                            "switch",
                            "switch=a,vlan=0",
                            "switch=a,vlan=4095",
                            "nat,vlan=5",
                            "nat,forward=tcp:1:2:3",
                            "nat,rate=0",
                            "nat,rate=7",
                            "nat,rate=1001G",
                            "nat,rate=10MB",
                            "nat,rate=",
                            "nat,rate=1M,rate=2M",
                            "tap=a,burst=64K",
                            "tap=a,rate=1M,burst=0",
                            "tap=a,rate=1M,burst=2G",
                            "none,rate=1M",
                            "isolated,rate=1M",
                            "nat,speed=10"}) {
    EXPECT_FALSE(parse_nic(wrong)) << wrong;
  }
  // Policy is a switch process's: whoever looks for it here is told where it is.
  for (const std::string link : {"switch=lan", "nat", "tap=a"}) {
    EXPECT_EQ(parse_nic(link + ",group=office").error().message,
              "group: a plant's switch has these: switch=/DIRECTORY,group=NAME (docs/plants.md); a switch inside the "
              "machine has no policy, but vlan=NUMBER keeps cards apart");
  }
  EXPECT_TRUE(parse_nic("switch=lan,port=a").error().message.starts_with("port: a plant's switch has these: "));
  EXPECT_EQ(parse_nic("switch=/run/tank,port=plc1.0,vlan=5").error().message,
            "vlan: of a port of a plant's switch its group says it (docs/plants.md)");
}

TEST(Config, OnlyNvmeDisksShareAController) {
  VmConfig config;
  ASSERT_TRUE(set_value(config, "spec.boot.kernel", "/dev/null", "--kernel"));
  ASSERT_TRUE(set_list(config, "spec.disks",
                       {"file=/dev/null,bus=nvme,controller=a", "file=/dev/null,bus=nvme,controller=a"}, "--disk"));
  EXPECT_EQ(config.disks[1].value.controller, "a");
  EXPECT_TRUE(check_config(config));
  ASSERT_TRUE(set_list(config, "spec.disks", {"file=/dev/null,controller=a"}, "--disk"));
  EXPECT_EQ(check_config(config).error().message, "--disk '/dev/null': controller=a: only with bus=nvme");
  EXPECT_EQ(set_list(config, "spec.disks", {"file=d,controller=a/b"}, "--disk").error().message,
            "--disk 'file=d,controller=a/b': controller=a/b: allowed: 1 to 32 letters, digits, '-' and '_'");
}

TEST(Config, ADelayOnPurposeHasNoPlaceInADeterministicRun) {
  VmConfig config;
  ASSERT_TRUE(set_value(config, "spec.boot.kernel", "/dev/null", "--kernel"));
  ASSERT_TRUE(set_value(config, "spec.deterministic", "true", "--deterministic"));
  ASSERT_TRUE(set_list(config, "spec.disks", {"file=/dev/null,fault=jitter:1ms"}, "--disk"));
  EXPECT_EQ(check_config(config).error().message,
            "--disk '/dev/null': fault: the disks of a deterministic run answer at once, without a delay");
  ASSERT_TRUE(set_list(config, "spec.disks", {"file=/dev/null,fault=torn:1%"}, "--disk"));
  EXPECT_TRUE(check_config(config));
}

TEST(Nic, HasABoundAndNoPlaceInADeterministicRun) {
  VmConfig config;
  const std::vector<std::string> many(VmConfig::kMaximumNics + 1, "none");
  EXPECT_FALSE(set_list(config, "spec.nics", many, "--nic"));
  ASSERT_TRUE(set_list(config, "spec.nics", {"none", "nat"}, "--nic"));
  EXPECT_EQ(config.nics.size(), 2u);
  ASSERT_TRUE(set_value(config, "spec.boot.kernel", "/dev/null", "--kernel"));
  ASSERT_TRUE(set_value(config, "spec.deterministic", "true", "--deterministic"));
  EXPECT_EQ(
      check_config(config).error().message,
      "--nic 'nat': not in a deterministic run, where frames would come at the host's time; allowed: isolated or none");
  ASSERT_TRUE(set_list(config, "spec.nics", {"none"}, "--nic"));
  EXPECT_TRUE(check_config(config));
}

}  // namespace
}  // namespace bulkhead::vmm
