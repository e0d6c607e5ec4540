// Gives memory back to the host that the process holds but does not need any more.
#pragma once

namespace bulkhead {

// After a phase that took a lot and is over, such as starting: free memory of the heap, and pages of programs and
// libraries that are as their files have them, which come back from the host's cache when they are touched again.
void give_back_unused_memory();

}  // namespace bulkhead
