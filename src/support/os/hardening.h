// What a process gives up for good, so that a fault in it is worth less to a guest.
#pragma once

namespace bulkhead {

// From now on no memory of this process that is or was writable can become executable: mmap() of both at once and
// mprotect() that adds execution fail (PR_SET_MDWE, Linux 6.3). Two views of one file, one to write and one to run,
// stay possible. Returns false where the kernel does not know it, which changes nothing.
bool forbid_writable_code();

}  // namespace bulkhead
