#include "support/os/confine.h"

#include <cerrno>
#include <memory>

#include <fcntl.h>
#include <linux/landlock.h>
#include <seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "support/os/fd.h"

namespace bulkhead {
namespace {

// Waiting, reading and writing what is open, memory, time, threads' locks, and the end.
constexpr const char* kCommonCalls[] = {"read",
                                        "write",
                                        "readv",
                                        "writev",
                                        "preadv2",
                                        "close",
                                        "lseek",
                                        "fstat",
                                        "newfstatat",
                                        "fcntl",
                                        "ppoll",
                                        "poll",
                                        "epoll_wait",
                                        "epoll_pwait",
                                        "epoll_pwait2",
                                        "epoll_ctl",
                                        "futex",
                                        "mmap",
                                        "munmap",
                                        "mremap",
                                        "madvise",
                                        "mprotect",
                                        "brk",
                                        "clock_gettime",
                                        "clock_nanosleep",
                                        "nanosleep",
                                        "gettimeofday",
                                        "getrandom",
                                        "getpid",
                                        "gettid",
                                        "tgkill",
                                        "rt_sigaction",
                                        "rt_sigreturn",
                                        "rt_sigprocmask",
                                        "sigaltstack",
                                        "restart_syscall",
                                        "sched_yield",
                                        "exit",
                                        "exit_group",
                                        "rseq",
                                        "set_robust_list",
                                        "membarrier"};

// Rights of version 1 of Landlock, which every kernel that has it knows; later ones if it knows them.
constexpr uint64_t kRightsOfVersion1 = (uint64_t{1} << 13) - 1;

uint64_t rights_of(long version) {
  uint64_t rights = kRightsOfVersion1;
  if (version >= 2) rights |= uint64_t{1} << 13;  // refer
  if (version >= 3) rights |= uint64_t{1} << 14;  // truncate: a descriptor that is open keeps it
  return rights;
}

// False where the kernel has no Landlock.
Result<bool> give_up_files(const Confinement& confinement) {
  const long version = ::syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION);
  if (version < 1) return false;
  landlock_ruleset_attr wanted{};
  wanted.handled_access_fs = rights_of(version);
  // The first field alone is what every version takes.
  const Fd rules(static_cast<int>(::syscall(SYS_landlock_create_ruleset, &wanted, sizeof wanted.handled_access_fs, 0)));
  if (!rules.valid()) return fail_errno(errno, "Landlock");
  const auto allow = [&rules](const Fd& path, uint64_t access) {
    landlock_path_beneath_attr rule{};
    rule.allowed_access = access;
    rule.parent_fd = path.get();
    return ::syscall(SYS_landlock_add_rule, rules.get(), LANDLOCK_RULE_PATH_BENEATH, &rule, 0) == 0;
  };
  for (const std::string& folder : confinement.removable_in) {
    const Fd path = TRY(open_file(folder, O_PATH | O_DIRECTORY));
    if (!allow(path, LANDLOCK_ACCESS_FS_REMOVE_FILE)) return fail_errno(errno, "Landlock: '{}'", folder);
  }
  for (const std::string& file : confinement.readable) {
    const auto path = open_file(file, O_PATH);
    if (path && !allow(*path, LANDLOCK_ACCESS_FS_READ_FILE)) return fail_errno(errno, "Landlock: '{}'", file);
  }
  if (::syscall(SYS_landlock_restrict_self, rules.get(), 0) != 0) return fail_errno(errno, "Landlock");
  return true;
}

Result<> give_up_calls(const std::vector<std::string>& calls) {
  const std::unique_ptr<void, void (*)(void*)> filter(::seccomp_init(SCMP_ACT_ERRNO(EPERM)),
                                                      [](void* each) { ::seccomp_release(each); });
  if (!filter) return fail("seccomp: no memory");
  const auto allow = [&filter](const char* name) {
    const int number = ::seccomp_syscall_resolve_name(name);
    // A name that this library or machine does not know cannot be called either.
    return number == __NR_SCMP_ERROR || ::seccomp_rule_add(filter.get(), SCMP_ACT_ALLOW, number, 0) == 0;
  };
  for (const char* const name : kCommonCalls) {
    if (!allow(name)) return fail("seccomp: {}", name);
  }
  for (const std::string& name : calls) {
    if (!allow(name.c_str())) return fail("seccomp: {}", name);
  }
  if (const int status = ::seccomp_load(filter.get()); status != 0) return fail_errno(-status, "seccomp");
  return {};
}

}  // namespace

Result<std::vector<std::string>> confine(const Confinement& confinement) {
  std::vector<std::string> missing;
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return fail_errno(errno, "no_new_privs");
  if (!TRY(give_up_files(confinement))) missing.emplace_back("files: this kernel has no Landlock");
  TRY(give_up_calls(confinement.calls));
  return missing;
}

}  // namespace bulkhead
