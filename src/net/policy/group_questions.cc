#include "net/policy/group_questions.h"

namespace bulkhead::net::policy {

bool GroupQuestions::ask(const Flow& flow, const Path& path, uint32_t rule, uint64_t now_ns) {
  const Key key{.port = path.from,
                .asked_zone = path.to_zone,
                .vlan = path.vlan,
                .asking_number = flow.source_port,
                .asked_number = flow.destination_port,
                .address = flow.source};
  const Question question{.expires_ns = now_ns + kLifetime_ns, .rule = rule, .answers = 0};
  if (const auto known = questions_.find(key); known != questions_.end()) {
    known->second = question;
    return true;
  }
  const auto is_full = [&] {
    return questions_.size() >= kMaximumQuestions || port_counts_[path.from] >= kQuestionsAPort;
  };
  if (is_full()) sweep(now_ns);
  if (is_full()) return false;
  questions_.emplace(key, question);
  ++port_counts_[path.from];
  return true;
}

std::optional<uint32_t> GroupQuestions::answer(const Flow& flow, const Path& path, bool is_to_group, uint64_t now_ns,
                                               const std::function<bool(uint32_t rule)>& may_answer) {
  const Key least{.port = path.to,
                  .asked_zone = path.from_zone,
                  .vlan = path.vlan,
                  .asking_number = flow.destination_port,
                  .asked_number = flow.source_port,
                  .address = {}};
  for (auto each = questions_.lower_bound(least); each != questions_.end(); ++each) {
    auto& [key, question] = *each;
    Key without_address = key;
    without_address.address = {};
    if (without_address != least) break;
    const bool is_for_it = is_to_group || key.address == flow.destination || key.address.is_unspecified();
    if (!is_for_it || question.expires_ns <= now_ns || question.answers >= kMostAnswers) continue;
    if (!may_answer(question.rule)) continue;
    ++question.answers;
    return question.rule;
  }
  return std::nullopt;
}

// Not for each that finds no room: all of them are looked at.
void GroupQuestions::sweep(uint64_t now_ns) {
  if (swept_ns_ != 0 && now_ns - swept_ns_ < kSweepInterval_ns) return;
  swept_ns_ = now_ns;
  std::erase_if(questions_, [&](const auto& each) {
    if (each.second.expires_ns > now_ns) return false;
    --port_counts_[each.first.port];
    return true;
  });
}

void GroupQuestions::forget_port(uint16_t port) {
  std::erase_if(questions_, [port](const auto& each) { return each.first.port == port; });
  port_counts_.erase(port);
}

void GroupQuestions::clear() {
  questions_.clear();
  port_counts_.clear();
}

}  // namespace bulkhead::net::policy
