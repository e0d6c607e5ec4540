#include "net/probe/questions.h"

#include <string>

namespace bulkhead::net::probe {

using Judgement = Question::Judgement;

void ask_modbus(Question& question, uint8_t unit, uint16_t address) {
  question.text = {0, 1, 0, 0, 0, 6, unit, 3, static_cast<uint8_t>(address >> 8), static_cast<uint8_t>(address), 0, 1};
  question.judge = [unit](ByteSpan answer) {
    if (answer.size() < 9) return Judgement::kMore;
    const bool good = answer[0] == 0 && answer[1] == 1 && answer[2] == 0 && answer[3] == 0 && answer[6] == unit &&
                      (answer[7] & 0x7F) == 3;
    return good ? Judgement::kGood : Judgement::kBad;
  };
}

void ask_http(Question& question, std::string_view host, std::string_view path) {
  const std::string text = fmt::format("GET {} HTTP/1.0\r\nHost: {}\r\nConnection: close\r\n\r\n", path, host);
  question.text.assign(text.begin(), text.end());
  question.judge = [](ByteSpan answer) {
    // "HTTP/1.1 200"
    if (answer.size() < 12) return Judgement::kMore;
    const std::string_view begin(reinterpret_cast<const char*>(answer.data()), 12);
    const bool good = begin.starts_with("HTTP/1.") && begin[8] == ' ' && (begin[9] == '2' || begin[9] == '3');
    return good ? Judgement::kGood : Judgement::kBad;
  };
}

void ask_mqtt(Question& question) {
  // CONNECT, protocol MQTT level 4, clean session, 10 s, client "bulkhead".
  question.text = {0x10, 20, 0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 10, 0, 8, 'b', 'u', 'l', 'k', 'h', 'e', 'a', 'd'};
  question.judge = [](ByteSpan answer) {
    if (answer.size() < 4) return Judgement::kMore;
    // CONNACK; that it wants a password shows that it is there.
    return answer[0] == 0x20 && answer[1] == 2 ? Judgement::kGood : Judgement::kBad;
  };
}

}  // namespace bulkhead::net::probe
