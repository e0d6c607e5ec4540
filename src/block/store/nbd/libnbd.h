// Debian's libnbd, loaded when the first NBD address is opened: it brings a TLS and an XML library along, which a
// machine with disks of its own has no use for.
#pragma once

#include <libnbd.h>

#include "support/result.h"

namespace bulkhead::block::nbd {

struct Libnbd {
  static Result<const Libnbd*> load();

  decltype(&nbd_create) create = nullptr;
  decltype(&nbd_close) close = nullptr;
  decltype(&nbd_get_error) get_error = nullptr;
  decltype(&nbd_add_meta_context) add_meta_context = nullptr;
  decltype(&nbd_aio_connect_uri) connect_uri = nullptr;
  decltype(&nbd_poll) poll = nullptr;
  decltype(&nbd_aio_is_connecting) is_connecting = nullptr;
  decltype(&nbd_aio_is_ready) is_ready = nullptr;
  decltype(&nbd_aio_is_dead) is_dead = nullptr;
  decltype(&nbd_aio_is_closed) is_closed = nullptr;
  decltype(&nbd_aio_get_fd) get_fd = nullptr;
  decltype(&nbd_aio_get_direction) get_direction = nullptr;
  decltype(&nbd_aio_notify_read) notify_read = nullptr;
  decltype(&nbd_aio_notify_write) notify_write = nullptr;
  decltype(&nbd_get_size) get_size = nullptr;
  decltype(&nbd_get_block_size) get_block_size = nullptr;
  decltype(&nbd_is_read_only) is_read_only = nullptr;
  decltype(&nbd_can_flush) can_flush = nullptr;
  decltype(&nbd_can_zero) can_zero = nullptr;
  decltype(&nbd_can_meta_context) can_meta_context = nullptr;
  decltype(&nbd_aio_pread) pread = nullptr;
  decltype(&nbd_aio_pwrite) pwrite = nullptr;
  decltype(&nbd_aio_flush) flush = nullptr;
  decltype(&nbd_aio_zero) zero = nullptr;
  decltype(&nbd_aio_block_status) block_status = nullptr;
  decltype(&nbd_aio_disconnect) disconnect = nullptr;
};

}  // namespace bulkhead::block::nbd
