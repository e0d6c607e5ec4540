#include "vmm/engine/engine_choice.h"

#include <gtest/gtest.h>

namespace bulkhead::vmm {
namespace {

class NamedBackend final : public EngineBackend {
 public:
  explicit NamedBackend(std::string_view name) : name_(name) {}
  [[nodiscard]] std::string_view name() const override { return name_; }
  [[nodiscard]] cpu::FeatureSet available_features() const override { return {}; }
  Result<std::unique_ptr<VmEngine>> create(const EngineParts&) override { return fail("only a name"); }

 private:
  std::string_view name_;
};

EngineSources sources(bool has_kvm, bool hardware_backed) {
  return {[has_kvm]() -> Result<std::unique_ptr<EngineBackend>> {
            if (!has_kvm) return fail("open '/dev/kvm': No such file or directory");
            return std::make_unique<NamedBackend>("kvm");
          },
          [] { return std::make_unique<NamedBackend>("soft"); },
          [hardware_backed]() -> Result<> {
            if (!hardware_backed) return fail("/dev/kvm runs 2 million instructions a second");
            return {};
          }};
}

struct Case {
  EngineName wanted;
  bool has_kvm, hardware_backed;
  std::string_view name, reason;
};

TEST(EngineChoice, TakesKvmOnlyWhenHardwareBacksItAndSaysWhy) {
  const Case cases[] = {
      {EngineName::kAuto, true, true, "kvm", "engine kvm"},
      {EngineName::kAuto, true, false, "soft", "engine soft: /dev/kvm runs 2 million instructions a second"},
      {EngineName::kAuto, false, false, "soft", "engine soft: open '/dev/kvm': No such file or directory"},
      {EngineName::kSoft, true, true, "soft", ""},
      {EngineName::kKvm, true, false, "kvm", ""},
  };
  for (const Case& c : cases) {
    const auto choice = choose_engine({c.wanted, ""}, sources(c.has_kvm, c.hardware_backed));
    ASSERT_TRUE(choice);
    EXPECT_EQ(choice->backend->name(), c.name);
    EXPECT_EQ(choice->reason, c.reason);
  }
}

TEST(EngineChoice, RefusesKvmByNameWhereThereIsNone) {
  EXPECT_EQ(choose_engine({EngineName::kKvm, "--engine"}, sources(false, false)).error().message,
            "--engine 'kvm': open '/dev/kvm': No such file or directory");
}

}  // namespace
}  // namespace bulkhead::vmm
