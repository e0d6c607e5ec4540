// LUKS2: JSON behind a table of fixed fields, both twice. A volume is taken when it is one encrypted segment that
// nobody was changing; whatever else the JSON demands is refused.
#include <algorithm>
#include <array>
#include <charconv>
#include <set>

#include <openssl/evp.h>

#include "block/format/big_endian.h"
#include "block/format/luks/header.h"
#include "support/yaml/document.h"

namespace bulkhead::block::luks {
namespace {

// JSON is YAML; nothing in it may stand for something else.
constexpr yaml::Limits kJsonLimits{.bytes = kLargestJson, .levels = 12, .values = 4000, .aliases = 0};
constexpr uint64_t kAreasAt = 2 * kHeaderSize2;
constexpr size_t kSaltBytes = 64, kSumAt = 448;

struct Place {
  const std::string& file;
  std::string where;
};

Result<uint64_t> number(const YAML::Node& node, const Place& place, const char* key, uint64_t low, uint64_t high) {
  const YAML::Node found = node.IsMap() ? node[key] : YAML::Node();
  const std::string text = found && found.IsScalar() ? found.Scalar() : "";
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size() || value < low || value > high) {
    return fail("open '{}': LUKS2 {}: {} '{}'; allowed are {} to {}", place.file, place.where, key, text.substr(0, 40),
                low, high);
  }
  return value;
}

Result<std::string> text(const YAML::Node& node, const Place& place, const char* key) {
  const YAML::Node found = node.IsMap() ? node[key] : YAML::Node();
  if (found && found.IsScalar() && found.Scalar().size() <= 64) return found.Scalar();
  return fail("open '{}': LUKS2 {}: no {}", place.file, place.where, key);
}

Result<std::vector<uint8_t>> base64(const YAML::Node& node, const Place& place, const char* key) {
  const YAML::Node found = node.IsMap() ? node[key] : YAML::Node();
  const std::string text = found && found.IsScalar() ? found.Scalar() : "";
  std::vector<uint8_t> bytes(text.size() / 4 * 3);
  const bool fits = !text.empty() && text.size() % 4 == 0 && bytes.size() <= kMostSaltBytes;
  const int size = fits ? ::EVP_DecodeBlock(bytes.data(), reinterpret_cast<const uint8_t*>(text.data()),
                                            static_cast<int>(text.size()))
                        : -1;
  if (size < 0)
    return fail("open '{}': LUKS2 {}: {} of {} bytes is no base64", place.file, place.where, key, text.size());
  const size_t filled = std::min<size_t>(2, text.size() - 1 - text.find_last_not_of('='));
  bytes.resize(static_cast<size_t>(size) - filled);
  return bytes;
}

bool holds(const YAML::Node& list, const std::string& wanted) {
  if (!list || !list.IsSequence()) return false;
  return std::ranges::any_of(list, [&](const YAML::Node& one) { return one.IsScalar() && one.Scalar() == wanted; });
}

Result<Kdf> parse_kdf(const YAML::Node& node, const Place& place) {
  Kdf kdf;
  const std::string type = TRY(text(node, place, "type"));
  kdf.salt = TRY(base64(node, place, "salt"));
  if (type == "pbkdf2") {
    kdf.hash = TRY(text(node, place, "hash"));
    kdf.iterations = TRY(number(node, place, "iterations", 1, INT32_MAX));
    return kdf;
  }
  if (type != "argon2i" && type != "argon2id")
    return fail("open '{}': LUKS2 {}: kdf '{}'", place.file, place.where, type);
  kdf.kind = type == "argon2i" ? Kdf::Kind::kArgon2i : Kdf::Kind::kArgon2id;
  kdf.iterations = TRY(number(node, place, "time", 1, UINT32_MAX));
  kdf.memory_kib = TRY(number(node, place, "memory", 8, UINT32_MAX));
  kdf.lanes = static_cast<uint32_t>(TRY(number(node, place, "cpus", 1, 64)));
  return kdf;
}

Result<Keyslot> parse_keyslot(const YAML::Node& node, const Place& place, uint64_t length) {
  Keyslot slot;
  slot.key_bytes = static_cast<uint32_t>(TRY(number(node, place, "key_size", 16, 64)));
  const YAML::Node split = node["af"], area = node["area"], kdf = node["kdf"];
  if (!split || !area || !kdf) return fail("open '{}': LUKS2 {}: no af, area or kdf", place.file, place.where);
  TRY(number(split, place, "stripes", kStripes, kStripes));
  slot.split_hash = TRY(text(split, place, "hash"));
  slot.offset = TRY(number(area, place, "offset", kBinaryBytes, INT64_MAX));
  const uint64_t size = TRY(number(area, place, "size", 1, kLargestHeader * 32));
  if (size < slot.bytes() || !range_fits(slot.offset, slot.bytes(), length)) {
    return fail("open '{}': LUKS2 {}: {} bytes at {} do not hold {} within {}", place.file, place.where, size,
                slot.offset, slot.bytes(), length);
  }
  slot.cipher =
      TRY_IN(fmt::format("open '{}': LUKS2 {}", place.file, place.where),
             CipherSpec::parse(TRY(text(area, place, "encryption")), TRY(number(area, place, "key_size", 16, 64))));
  slot.kdf = TRY(parse_kdf(kdf, place));
  return slot;
}

// The segment is the disk.
Result<> parse_segment(const YAML::Node& root, const Place& place, Header& header, std::string& segment_name,
                       std::string& encryption) {
  const YAML::Node segments = root["segments"];
  if (!segments || !segments.IsMap() || segments.size() != 1) {
    return fail("open '{}': LUKS2 segments: one is known, not {}", place.file, segments ? segments.size() : 0);
  }
  segment_name = segments.begin()->first.Scalar();
  const YAML::Node segment = segments.begin()->second;
  if (const std::string type = TRY(text(segment, place, "type")); type != "crypt") {
    return fail("open '{}': LUKS2 segment of type '{}'", place.file, type);
  }
  if (segment["integrity"]) return fail("open '{}': LUKS2 with integrity is not known", place.file);
  header.payload_offset = TRY(number(segment, place, "offset", 2 * kBinaryBytes, INT64_MAX));
  header.first_number = TRY(number(segment, place, "iv_tweak", 0, INT64_MAX));
  header.sector_size = static_cast<uint32_t>(TRY(number(segment, place, "sector_size", 512, 4096)));
  if (!std::has_single_bit(header.sector_size)) {
    return fail("open '{}': LUKS2 sectors of {} bytes", place.file, header.sector_size);
  }
  if (TRY(text(segment, place, "size")) != "dynamic") {
    header.payload_size = TRY(number(segment, place, "size", 512, INT64_MAX));
  }
  if (header.payload_offset % 512 != 0 || header.payload_size.value_or(0) % header.sector_size != 0) {
    return fail("open '{}': LUKS2 segment at {} with {} bytes: no whole sectors", place.file, header.payload_offset,
                header.payload_size.value_or(0));
  }
  encryption = TRY(text(segment, place, "encryption"));
  return {};
}

Result<YAML::Node> find_digest(const YAML::Node& root, const Place& place, const std::string& segment) {
  const YAML::Node digests = root["digests"];
  if (digests && digests.IsMap()) {
    for (const auto& one : digests) {
      if (one.second.IsMap() && holds(one.second["segments"], segment)) return one.second;
    }
  }
  return fail("open '{}': LUKS2 digests: none for the segment", place.file);
}

Result<Header> parse_root(const YAML::Node& root, const std::string& name, uint64_t length) {
  if (!root.IsMap()) return fail("open '{}': LUKS2: no JSON object", name);
  Header header;
  if (const YAML::Node config = root["config"]; config && config.IsMap() && config["requirements"]) {
    const YAML::Node wanted = config["requirements"]["mandatory"];
    if (wanted && wanted.size() != 0) return fail("open '{}': LUKS2 has requirements, as of a reencryption", name);
  }
  std::string segment, encryption;
  TRY(parse_segment(root, {name, "segment"}, header, segment, encryption));
  const Place of_digest{name, "digest"};
  const YAML::Node digest = TRY(find_digest(root, of_digest, segment));
  if (const std::string type = TRY(text(digest, of_digest, "type")); type != "pbkdf2") {
    return fail("open '{}': LUKS2 digest of type '{}'", name, type);
  }
  header.digest = {.hash = TRY(text(digest, of_digest, "hash")),
                   .iterations = TRY(number(digest, of_digest, "iterations", 1, INT32_MAX)),
                   .salt = TRY(base64(digest, of_digest, "salt")),
                   .digest = TRY(base64(digest, of_digest, "digest"))};
  const YAML::Node keyslots = root["keyslots"];
  if (!keyslots || !keyslots.IsMap()) return fail("open '{}': LUKS2: no keyslots", name);
  std::set<uint32_t> seen;
  for (const auto& one : keyslots) {
    const std::string key = one.first.IsScalar() ? one.first.Scalar() : "";
    if (!holds(digest["keyslots"], key)) continue;
    uint32_t index = 0;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), index);
    if (error != std::errc() || end != key.data() + key.size() || index >= kMostKeyslots ||
        !seen.insert(index).second) {
      return fail("open '{}': LUKS2 keyslot '{}'", name, key.substr(0, 40));
    }
    const Place place{name, fmt::format("keyslot {}", index)};
    if (!one.second.IsMap()) return fail("open '{}': LUKS2 {}: no object", name, place.where);
    if (TRY(text(one.second, place, "type")) != "luks2") continue;
    // 0 is never tried of its own.
    if (one.second["priority"] && TRY(number(one.second, place, "priority", 0, 2)) == 0) continue;
    header.keyslots.push_back(TRY(parse_keyslot(one.second, place, length)));
    header.keyslots.back().number = index;
    if (header.keyslots.back().key_bytes != header.keyslots.front().key_bytes) {
      return fail("open '{}': LUKS2 {}: key of {} bytes", name, place.where, header.keyslots.back().key_bytes);
    }
  }
  if (header.keyslots.empty()) return fail("open '{}': LUKS2: no keyslot that a passphrase could open", name);
  std::ranges::sort(header.keyslots, {}, &Keyslot::number);
  header.cipher = TRY_IN(fmt::format("open '{}': LUKS2 segment", name),
                         CipherSpec::parse(encryption, header.keyslots.front().key_bytes));
  return header;
}

std::string to_base64(ByteSpan bytes) {
  std::string text((bytes.size() + 2) / 3 * 4 + 1, '\0');
  const int size =
      ::EVP_EncodeBlock(reinterpret_cast<uint8_t*>(text.data()), bytes.data(), static_cast<int>(bytes.size()));
  text.resize(static_cast<size_t>(size));
  return text;
}

std::string json_of(const Kdf& kdf) {
  const std::string salt = to_base64(kdf.salt);
  if (kdf.kind == Kdf::Kind::kPbkdf2) {
    return fmt::format(R"({{"type":"pbkdf2","hash":"{}","iterations":{},"salt":"{}"}})", kdf.hash, kdf.iterations,
                       salt);
  }
  return fmt::format(R"({{"type":"{}","time":{},"memory":{},"cpus":{},"salt":"{}"}})",
                     kdf.kind == Kdf::Kind::kArgon2id ? "argon2id" : "argon2i", kdf.iterations, kdf.memory_kib,
                     kdf.lanes, salt);
}

std::string json_of(const Header& header) {
  std::string slots, numbers;
  for (const Keyslot& slot : header.keyslots) {
    const char* const comma = slots.empty() ? "" : ",";
    slots +=
        fmt::format(R"({}"{}":{{"type":"luks2","key_size":{},"af":{{"type":"luks1","stripes":{},"hash":"{}"}},)"
                    R"("area":{{"type":"raw","offset":"{}","size":"{}","encryption":"{}","key_size":{}}},"kdf":{}}})",
                    comma, slot.number, slot.key_bytes, kStripes, slot.split_hash, slot.offset,
                    align_up(slot.bytes(), 4096), slot.cipher.name(), slot.cipher.key_bytes, json_of(slot.kdf));
    numbers += fmt::format(R"({}"{}")", comma, slot.number);
  }
  return fmt::format(
      R"({{"keyslots":{{{}}},"tokens":{{}},"segments":{{"0":{{"type":"crypt","offset":"{}","size":"dynamic",)"
      R"("iv_tweak":"{}","encryption":"{}","sector_size":{}}}}},"digests":{{"0":{{"type":"pbkdf2","keyslots":[{}],)"
      R"("segments":["0"],"hash":"{}","iterations":{},"salt":"{}","digest":"{}"}}}},)"
      R"("config":{{"json_size":"{}","keyslots_size":"{}"}}}})",
      slots, header.payload_offset, header.first_number, header.cipher.name(), header.sector_size, numbers,
      header.digest.hash, header.digest.iterations, to_base64(header.digest.salt), to_base64(header.digest.digest),
      kHeaderSize2 - kBinaryBytes, header.payload_offset - kAreasAt);
}

// SHA-256 of a copy whose sum is zero.
std::array<uint8_t, 32> sum_of(std::vector<uint8_t> copy) {
  std::fill_n(copy.begin() + kSumAt, 64, uint8_t{0});
  std::array<uint8_t, 32> sum{};
  CHECK(::EVP_Digest(copy.data(), copy.size(), sum.data(), nullptr, ::EVP_sha256(), nullptr) == 1,
        "libcrypto has SHA-256");
  return sum;
}

// One of the two that a volume has.
struct Copy {
  std::vector<uint8_t> bytes;
  uint64_t sequence = 0;
  [[nodiscard]] std::string_view json() const {
    const auto* const begin = reinterpret_cast<const char*>(bytes.data()) + kBinaryBytes;
    return {begin, ::strnlen(begin, bytes.size() - kBinaryBytes)};
  }
};

Result<Copy> read_copy(Store& store, uint64_t offset, bool second) {
  Copy copy{.bytes = std::vector<uint8_t>(kBinaryBytes)};
  TRY(store.read_all(offset, copy.bytes));
  const std::string_view magic = second ? std::string_view("SKUL\xBA\xBE", 6) : kMagic;
  if (std::memcmp(copy.bytes.data(), magic.data(), magic.size()) != 0 || copy.bytes[6] != 0 || copy.bytes[7] != 2) {
    return fail("LUKS2 header at byte {}: it is gone", offset);
  }
  const uint64_t size = load64(&copy.bytes[8]);
  if (size < kHeaderSize2 || size > kLargestHeader || !std::has_single_bit(size) ||
      load64(&copy.bytes[256]) != offset) {
    return fail("LUKS2 header at byte {}: size {}, place {}", offset, size, load64(&copy.bytes[256]));
  }
  if (std::memcmp(&copy.bytes[72], "sha256", 7) != 0)
    return fail("LUKS2 header at byte {}: its sum is no sha256", offset);
  copy.sequence = load64(&copy.bytes[16]);
  copy.bytes.resize(size);
  TRY(store.read_all(offset + kBinaryBytes, MutableByteSpan(copy.bytes).subspan(kBinaryBytes)));
  if (std::memcmp(sum_of(copy.bytes).data(), &copy.bytes[kSumAt], 32) != 0) {
    return fail("LUKS2 header at byte {}: its sum is wrong", offset);
  }
  if (copy.json().size() > kLargestJson) {
    return fail("LUKS2 header at byte {}: {} bytes of JSON, more than {}", offset, copy.json().size(), kLargestJson);
  }
  return copy;
}

struct Copies {
  Result<Copy> first, second;
  // The newer one of those that are right.
  [[nodiscard]] const Result<Copy>& best() const {
    return !first || (second && second->sequence > first->sequence) ? second : first;
  }
};

// The second lies behind the first, whose size a damaged one does not say.
Copies read_copies(Store& store) {
  Copies copies{read_copy(store, 0, false), fail("LUKS2: no second header")};
  if (copies.first) {
    copies.second = read_copy(store, copies.first->bytes.size(), true);
    return copies;
  }
  for (uint64_t at = kHeaderSize2; at <= kLargestHeader && !copies.second; at *= 2) {
    copies.second = read_copy(store, at, true);
  }
  return copies;
}

std::vector<uint8_t> with_place(std::vector<uint8_t> copy, ByteSpan salt, bool second) {
  if (second) {
    std::memcpy(copy.data(), "SKUL", 4);
  } else {
    std::memcpy(copy.data(), "LUKS", 4);
  }
  std::memcpy(&copy[104], salt.data(), kSaltBytes);
  store64(&copy[256], second ? copy.size() : 0);
  const auto sum = sum_of(copy);
  std::fill_n(copy.begin() + kSumAt, 64, uint8_t{0});
  std::ranges::copy(sum, copy.begin() + kSumAt);
  return copy;
}

}  // namespace

Result<Header> parse2(std::string_view json, const std::string& name, uint64_t length) {
  return yaml::read(json, fmt::format("open '{}': LUKS2 header", name), kJsonLimits, "a JSON object",
                    [&](const YAML::Node& root) { return parse_root(root, name, length); });
}

Result<Header> read_header(Store& store, uint64_t start, uint64_t length) {
  std::vector<uint8_t> begin(kBytes1);
  TRY(store.read_all(start, begin));
  const bool first = std::memcmp(begin.data(), kMagic.data(), kMagic.size()) == 0;
  const uint32_t version = begin[6] << 8 | begin[7];
  if (first && version == 1) return parse1(begin, store.name(), length);
  if (start != 0 || (first && version != 2)) {
    return fail("open '{}': no LUKS header of a known version at byte {}", store.name(), start);
  }
  const Copies copies = read_copies(store);
  if (!copies.best())
    return fail("open '{}': {}", store.name(), (first ? copies.first : copies.second).error().message);
  Header header = TRY(parse2(copies.best()->json(), store.name(), length));
  const auto* const uuid = reinterpret_cast<const char*>(&copies.best()->bytes[168]);
  header.uuid.assign(uuid, ::strnlen(uuid, 40));
  return header;
}

Result<std::vector<std::string>> check_copies(Store& store) {
  const Copies copies = read_copies(store);
  std::vector<std::string> found;
  if (!copies.first) found.push_back(copies.first.error().message);
  if (!copies.second) found.push_back(copies.second.error().message);
  if (copies.first && copies.second && copies.first->sequence != copies.second->sequence) {
    found.push_back(
        fmt::format("the LUKS2 headers differ: changes {} and {}", copies.first->sequence, copies.second->sequence));
  }
  return found;
}

Result<> repair_copies(Store& store) {
  const Copies copies = read_copies(store);
  if (!copies.best()) return fail("repair '{}': {}", store.name(), copies.best().error().message);
  const Copy& good = *copies.best();
  const bool writes_first = &copies.best() == &copies.second;
  const auto bytes = with_place(good.bytes, ByteSpan(good.bytes).subspan(104, kSaltBytes), !writes_first);
  TRY(store.write_all(writes_first ? 0 : good.bytes.size(), bytes));
  return store.flush_all();
}

std::vector<uint8_t> make2(const Header& header, ByteSpan salts) {
  std::vector<uint8_t> copy(kHeaderSize2);
  std::memcpy(copy.data(), kMagic.data(), kMagic.size());
  copy[7] = 2;
  store64(&copy[8], copy.size());
  store64(&copy[16], 1);
  std::memcpy(&copy[72], "sha256", 6);
  std::memcpy(&copy[168], header.uuid.data(), std::min<size_t>(header.uuid.size(), 39));
  const std::string json = json_of(header);
  CHECK(json.size() < copy.size() - kBinaryBytes, "a new LUKS2 header is larger than its place");
  std::memcpy(&copy[kBinaryBytes], json.data(), json.size());
  std::vector<uint8_t> both = with_place(copy, salts.first(kSaltBytes), false);
  const auto second = with_place(copy, salts.subspan(kSaltBytes, kSaltBytes), true);
  both.insert(both.end(), second.begin(), second.end());
  return both;
}

}  // namespace bulkhead::block::luks
