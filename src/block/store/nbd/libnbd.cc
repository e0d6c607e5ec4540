#include "block/store/nbd/libnbd.h"

#include <dlfcn.h>

namespace bulkhead::block::nbd {
namespace {

Result<Libnbd> load_now() {
  void* const library = ::dlopen("libnbd.so.0", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return fail("NBD needs Debian's package libnbd0: {}", ::dlerror());
  Libnbd found;
  const char* missing = nullptr;
  const auto get = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(::dlsym(library, name));
    if (function == nullptr) missing = name;
  };
  get(found.create, "nbd_create");
  get(found.close, "nbd_close");
  get(found.get_error, "nbd_get_error");
  get(found.add_meta_context, "nbd_add_meta_context");
  get(found.connect_uri, "nbd_aio_connect_uri");
  get(found.poll, "nbd_poll");
  get(found.is_connecting, "nbd_aio_is_connecting");
  get(found.is_ready, "nbd_aio_is_ready");
  get(found.is_dead, "nbd_aio_is_dead");
  get(found.is_closed, "nbd_aio_is_closed");
  get(found.get_fd, "nbd_aio_get_fd");
  get(found.get_direction, "nbd_aio_get_direction");
  get(found.notify_read, "nbd_aio_notify_read");
  get(found.notify_write, "nbd_aio_notify_write");
  get(found.get_size, "nbd_get_size");
  get(found.get_block_size, "nbd_get_block_size");
  get(found.is_read_only, "nbd_is_read_only");
  get(found.can_flush, "nbd_can_flush");
  get(found.can_zero, "nbd_can_zero");
  get(found.can_meta_context, "nbd_can_meta_context");
  get(found.pread, "nbd_aio_pread");
  get(found.pwrite, "nbd_aio_pwrite");
  get(found.flush, "nbd_aio_flush");
  get(found.zero, "nbd_aio_zero");
  get(found.block_status, "nbd_aio_block_status");
  get(found.disconnect, "nbd_aio_disconnect");
  if (missing != nullptr) return fail("libnbd.so.0 has no {}", missing);
  return found;
}

}  // namespace

Result<const Libnbd*> Libnbd::load() {
  static const Result<Libnbd> library = load_now();
  if (!library) return std::unexpected(library.error());
  return &*library;
}

}  // namespace bulkhead::block::nbd
