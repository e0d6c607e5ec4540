// What readiness asks of a service, and what a good answer begins with: Modbus/TCP reads a register, HTTP gets a path,
// MQTT 3.1.1 connects.
#pragma once

#include <string_view>

#include "net/probe/tcp_probe.h"

#include <fmt/format.h>

namespace bulkhead::net::probe {

// An exception is an answer too: the server is there.
void ask_modbus(Question& question, uint8_t unit, uint16_t address);
// Statuses of 200 to 399 are good.
void ask_http(Question& question, std::string_view host, std::string_view path);
void ask_mqtt(Question& question);

}  // namespace bulkhead::net::probe
