// Seconds since 1970 and the fields of a real-time clock. Proleptic Gregorian; no leap seconds, as the chip has none.
#pragma once

#include <chrono>
#include <cstdint>

namespace bulkhead::device::legacy {

struct CalendarTime {
  int32_t year = 1970;
  uint32_t month = 1, day = 1;  // from 1
  uint32_t weekday = 5;         // 1 = Sunday
  uint32_t hour = 0, minute = 0, second = 0;
};

inline constexpr int64_t kSecondsPerDay = 86'400;

[[nodiscard]] inline CalendarTime calendar_of(int64_t seconds) {
  const int64_t days = seconds >= 0 ? seconds / kSecondsPerDay : -((-seconds + kSecondsPerDay - 1) / kSecondsPerDay);
  const auto in_day = static_cast<uint32_t>(seconds - days * kSecondsPerDay);
  const std::chrono::sys_days date{std::chrono::days{days}};
  const std::chrono::year_month_day fields{date};
  return {.year = static_cast<int>(fields.year()),
          .month = static_cast<unsigned>(fields.month()),
          .day = static_cast<unsigned>(fields.day()),
          .weekday = std::chrono::weekday{date}.c_encoding() + 1,
          .hour = in_day / 3600,
          .minute = in_day / 60 % 60,
          .second = in_day % 60};
}

// Fields out of range carry over, as a chip that was set to the 31st of April soon shows the 1st of May.
[[nodiscard]] inline int64_t seconds_of(const CalendarTime& time) {
  const std::chrono::year_month first{std::chrono::year{time.year},
                                      std::chrono::month{time.month >= 1 && time.month <= 12 ? time.month : 1}};
  const auto days = std::chrono::sys_days{first / 1}.time_since_epoch().count() + static_cast<int64_t>(time.day) - 1;
  return days * kSecondsPerDay + int64_t{time.hour} * 3600 + int64_t{time.minute} * 60 + time.second;
}

}  // namespace bulkhead::device::legacy
