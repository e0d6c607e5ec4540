// Runs a plant: its switches, then its machines in the order of who waits for whom, each a process of this program. It
// keeps their output, asks whether they are ready, starts switches again when they die, and answers a control socket.
// One thread and one loop; it opens no guest's memory and reads no guest's frames but the probes' own.
//
//   machine: waiting -> starting (asked whether ready) -> ready -> ended
//                            `-> late: not ready within its time, which ends the plant's start but not the machine
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "net/server/control.h"
#include "plant/model.h"
#include "plant/run/agent_line.h"
#include "plant/run/child.h"
#include "plant/run/pause.h"
#include "plant/run/prober.h"
#include "support/loop/event_loop.h"

namespace bulkhead::plant {

enum class Stage : uint8_t { kWaiting, kStarting, kReady, kLate, kEnded };
[[nodiscard]] std::string_view to_string(Stage stage);

class Supervisor {
 public:
  // Of each process's log: when it is full, it begins anew and the one before is kept beside it as NAME.log.1.
  static constexpr uint64_t kLogBytes = 4u << 20;

  using Clock = std::chrono::steady_clock;

  // program is this program's own path. directory exists and is the plant's alone. now tells what has passed between
  // starts, deaths and questions; how often it is asked is the loop's.
  static Result<std::unique_ptr<Supervisor>> create(Plant plant, std::string plant_file, std::string directory,
                                                    std::string program, EventLoop& loop,
                                                    std::function<Clock::time_point()> now = Clock::now);
  ~Supervisor();

  // Once each, from the loop. The first when everything is ready or cannot become so (then with why), the second when
  // everything has ended.
  std::function<void(const std::string& why_not)> on_up;
  std::function<void()> on_down;

  // Presses power buttons, and after a while ends what goes on.
  void shut_down();

 private:
  struct Process {
    std::string name;
    const MachineConfig* machine = nullptr;  // else a switch, or
    const LinkToOutside* link = nullptr;
    std::vector<std::string> arguments;
    Stage stage = Stage::kWaiting;
    Child child;
    int status = 0;
    unsigned starts = 0;
    std::string not_started;  // why, if the latest start was none
    Clock::time_point began, ended;
    Clock::time_point looked;  // whether it is ready
    // Since it began, while others' commands had the line to its agent, so that it could not be asked.
    Clock::duration not_asked{};
    Pause pause;  // before it is started again
    std::unique_ptr<Prober> prober;
    std::unique_ptr<AgentLine> question;  // the same by a command in the guest
    uint64_t question_ns = 0;             // since when its command may run; without one, when the last has ended
    std::string awaited;                  // what it says when it is ready
    std::string tail;                     // of its output, where that may begin
    bool text_seen = false;
    bool was_ready = false;
    bool stop_asked = false;
    Fd log;
    uint64_t log_bytes = 0;
    Fd viewer;  // who looks at its console
    // Whose commands run in it, or wait to: the line to its agent is theirs, and readiness is not asked there.
    std::vector<Fd> commands;
  };

  Supervisor(Plant plant, std::string directory, std::string program, EventLoop& loop,
             std::function<Clock::time_point()> now)
      : plant_(std::move(plant)),
        directory_(std::move(directory)),
        program_(std::move(program)),
        loop_(loop),
        now_(std::move(now)) {}
  Result<> open(const std::string& plant_file);
  Result<> add_processes(const std::string& plant_file);
  [[nodiscard]] std::vector<std::string> machine_arguments(const MachineConfig& machine) const;
  Result<> start(Process& process);
  void not_started(Process& process, std::string why);
  // What follows a process's end, for the log.
  [[nodiscard]] static std::string again_text(const Process& process);
  void tick();
  void start_those_whose_turn_it_is();
  [[nodiscard]] bool is_ready(Process& process);
  [[nodiscard]] bool command_says_ready(Process& process);
  void look_after(Process& process);
  void on_output(Process& process);
  void write_log(Process& process, ByteSpan bytes);
  void on_child();
  void ended(Process& process, int status);
  void report_up();
  [[nodiscard]] Process* find(std::string_view name);

  [[nodiscard]] std::string answer(std::string_view line);
  [[nodiscard]] std::string list() const;
  [[nodiscard]] std::string stop(std::string_view name);
  // Gives the console to whoever asks, or says why not.
  void view(std::string_view name, std::string_view typed, Fd& socket);
  [[nodiscard]] std::string why_no_view(const Process* process, std::string_view name) const;
  void on_viewer(Process& process);
  // Leaves the agent's line to whoever asks, for as long as the socket is open.
  void leave_line(std::string_view name, Fd& socket);
  void on_command(Process& process, int fd);

  const Plant plant_;
  const std::string directory_;
  const std::string program_;
  EventLoop& loop_;
  const std::function<Clock::time_point()> now_;
  std::vector<std::unique_ptr<Process>> processes_;
  Fd children_;  // signalfd
  std::unique_ptr<net::server::Control> control_;
  bool is_up_ = false;
  bool is_going_down_ = false;
  bool is_down_ = false;
  Clock::time_point down_since_;
};

}  // namespace bulkhead::plant
