// Runs an artifact of fxcache with native code: no Python, nothing but libtorch.
//
//   fxcache::Artifact model("artifact");
//   fxcache::Run run(model, 20);
//   for (int step = 0; step < 20; ++step) outputs = run.step({sample, timestep, text});
//
// `fxcache export` and `fxcache compile` write the artifact. Every file is compared with its size
// and its hash, every weight and every input with its description, before it is used. A hash does
// not tell who made a folder: loading one runs the code in it.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/version.h>

namespace fxcache {

constexpr int FORMAT = 2;         // of manifest.json
constexpr int NATIVE_FORMAT = 1;  // of native/manifest.json

// What went wrong, with the place.
struct Error : std::runtime_error {
  Error(const std::string& what, const std::string& where)
      : std::runtime_error("fxcache: " + what + "\n  where: " + where) {}
};

// ---- JSON -------------------------------------------------------------------------------------

class Json {
 public:
  enum class Kind { null, boolean, number, text, list, object };

  static Json parse(const std::string& source, const std::string& where);

  bool is(Kind kind) const { return kind_ == kind; }
  bool boolean() const { return require(Kind::boolean), number_ != 0; }
  const std::string& text() const { return require(Kind::text), text_; }
  const std::vector<Json>& list() const { return require(Kind::list), list_; }
  const std::map<std::string, Json>& object() const { return require(Kind::object), object_; }

  std::int64_t whole() const {
    require(Kind::number);
    if (text_.find_first_of(".eE") != std::string::npos) throw Error("a whole number is expected", text_);
    return std::stoll(text_);
  }

  const Json& at(const std::string& name) const {
    auto found = object().find(name);
    if (found == object().end()) throw Error("a field is missing", name);
    return found->second;
  }

  std::vector<std::int64_t> wholes() const {
    std::vector<std::int64_t> found;
    for (const Json& item : list()) found.push_back(item.whole());
    return found;
  }

 private:
  struct Parser;

  void require(Kind kind) const {
    if (kind_ != kind) throw Error("a value of JSON has another type", text_.substr(0, 80));
  }

  Kind kind_ = Kind::null;
  double number_ = 0;
  std::string text_;
  std::vector<Json> list_;
  std::map<std::string, Json> object_;
};

struct Json::Parser {
  static constexpr int MAX_DEPTH = 64;
  const std::string& source;
  const std::string& where;
  std::size_t at = 0;

  [[noreturn]] void fail(const std::string& what) const {
    throw Error("this is not JSON: " + what, where + ", byte " + std::to_string(at));
  }

  char peek() const { return at < source.size() ? source[at] : '\0'; }

  void space() {
    while (at < source.size() && std::strchr(" \t\r\n", source[at])) ++at;
  }

  bool take(char wanted) {
    space();
    if (peek() != wanted) return false;
    ++at;
    return true;
  }

  void expect(char wanted) {
    if (!take(wanted)) fail(std::string("'") + wanted + "' is expected");
  }

  bool word(const char* wanted) {
    if (source.compare(at, std::strlen(wanted), wanted) != 0) return false;
    at += std::strlen(wanted);
    return true;
  }

  Json value(int depth) {
    if (depth > MAX_DEPTH) fail("values are nested too deeply");
    space();
    Json made;
    if (peek() == '{') {
      object(made, depth);
    } else if (peek() == '[') {
      list(made, depth);
    } else if (peek() == '"') {
      made.kind_ = Kind::text;
      made.text_ = text();
    } else if (word("true") || word("false")) {
      made.kind_ = Kind::boolean;
      made.number_ = source[at - 2] == 'u';  // true, not false
    } else if (!word("null")) {
      number(made);
    }
    return made;
  }

  void object(Json& made, int depth) {
    made.kind_ = Kind::object;
    expect('{');
    if (take('}')) return;
    do {
      space();
      std::string name = text();
      expect(':');
      if (!made.object_.emplace(std::move(name), value(depth + 1)).second) fail("a name is repeated");
    } while (take(','));
    expect('}');
  }

  void list(Json& made, int depth) {
    made.kind_ = Kind::list;
    expect('[');
    if (take(']')) return;
    do made.list_.push_back(value(depth + 1));
    while (take(','));
    expect(']');
  }

  void number(Json& made) {
    std::size_t start = at;
    while (at < source.size() && std::strchr("+-.eE0123456789", source[at])) ++at;
    if (start == at || at - start > 32) fail("a value is expected");
    made.kind_ = Kind::number;
    made.text_ = source.substr(start, at - start);
    try {
      made.number_ = std::stod(made.text_);
    } catch (const std::exception&) {
      fail("a number is expected");
    }
  }

  std::string text() {
    if (peek() != '"') fail("a text is expected");
    std::string found;
    for (++at; peek() != '"'; ++at) {
      if (at >= source.size()) fail("a text has no end");
      if (source[at] != '\\') {
        found += source[at];
        continue;
      }
      static const std::string escapes = "\"\\/bfnrt", plain = "\"\\/\b\f\n\r\t";
      char escape = ++at < source.size() ? source[at] : '\0';
      if (std::size_t place = escapes.find(escape); escape && place != std::string::npos) {
        found += plain[place];
      } else if (escape == 'u') {
        code_point(found);
      } else {
        fail("unknown escape");
      }
    }
    ++at;
    return found;
  }

  unsigned hex() {
    if (at + 4 >= source.size()) fail("a text has no end");
    std::string digits = source.substr(at + 1, 4);
    if (digits.find_first_not_of("0123456789abcdefABCDEF") != std::string::npos) fail("unknown escape");
    at += 4;
    return static_cast<unsigned>(std::stoul(digits, nullptr, 16));
  }

  void code_point(std::string& found) {
    unsigned code = hex();
    if (code >= 0xD800 && code < 0xDC00) {  // the first half of a pair
      if (source.compare(at + 1, 2, "\\u") != 0) fail("half of a character");
      at += 2;
      code = 0x10000 + ((code - 0xD800) << 10) + (hex() - 0xDC00);
    }
    if (code < 0x80) {
      found += static_cast<char>(code);
      return;
    }
    int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    found += static_cast<char>((0xF00 >> (more + 1) & 0xFF) | code >> (6 * more));
    while (more--) found += static_cast<char>(0x80 | (code >> (6 * more) & 0x3F));
  }
};

inline Json Json::parse(const std::string& source, const std::string& where) {
  Parser parser{source, where};
  Json value = parser.value(0);
  parser.space();
  if (parser.at != source.size()) parser.fail("there is more than one value");
  return value;
}

// ---- SHA-256 ----------------------------------------------------------------------------------

inline std::string sha256(const std::string& data) {
  static const std::uint32_t K[64] = {
      0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
      0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
      0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
      0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
      0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
      0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
      0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
      0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
  std::uint32_t state[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                            0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  auto turn = [](std::uint32_t x, int by) { return x >> by | x << (32 - by); };
  auto block = [&](const unsigned char* bytes) {
    std::uint32_t w[64];
    for (int i = 0; i < 16; ++i)
      w[i] = std::uint32_t(bytes[4 * i]) << 24 | bytes[4 * i + 1] << 16 | bytes[4 * i + 2] << 8 | bytes[4 * i + 3];
    for (int i = 16; i < 64; ++i)
      w[i] = w[i - 16] + (turn(w[i - 15], 7) ^ turn(w[i - 15], 18) ^ w[i - 15] >> 3) + w[i - 7] +
             (turn(w[i - 2], 17) ^ turn(w[i - 2], 19) ^ w[i - 2] >> 10);
    std::uint32_t v[8];
    std::memcpy(v, state, sizeof v);
    for (int i = 0; i < 64; ++i) {
      std::uint32_t one = v[7] + (turn(v[4], 6) ^ turn(v[4], 11) ^ turn(v[4], 25)) +
                          ((v[4] & v[5]) ^ (~v[4] & v[6])) + K[i] + w[i];
      std::uint32_t two = (turn(v[0], 2) ^ turn(v[0], 13) ^ turn(v[0], 22)) +
                          ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
      std::memmove(v + 1, v, 7 * sizeof *v);
      v[4] += one;
      v[0] = one + two;
    }
    for (int i = 0; i < 8; ++i) state[i] += v[i];
  };
  const auto* bytes = reinterpret_cast<const unsigned char*>(data.data());
  std::size_t whole = data.size() / 64 * 64;
  for (std::size_t at = 0; at < whole; at += 64) block(bytes + at);
  std::string end = data.substr(whole) + '\x80';
  end.resize((end.size() + 8 + 63) / 64 * 64, '\0');
  for (int i = 0; i < 8; ++i) end[end.size() - 1 - i] = static_cast<char>(std::uint64_t(data.size()) * 8 >> 8 * i);
  for (std::size_t at = 0; at < end.size(); at += 64) block(reinterpret_cast<const unsigned char*>(end.data()) + at);
  std::string found;
  for (std::uint32_t part : state)
    for (int i = 28; i >= 0; i -= 4) found += "0123456789abcdef"[part >> i & 15];
  return found;
}

// ---- Files and tensors ------------------------------------------------------------------------

inline std::string read_file(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  if (!stream) throw Error("the file cannot be read", file.string());
  std::ostringstream content;
  content << stream.rdbuf();
  return std::move(content).str();
}

// Returns the content of a file that `files` lists, with this size and this hash.
inline std::string listed_file(const std::filesystem::path& folder, const std::string& name, const Json& files) {
  if (name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_-./") != std::string::npos ||
      name.find("..") != std::string::npos || name.front() == '/')
    throw Error("the file name is not allowed", name);
  const Json& wanted = files.at(name);
  if (std::filesystem::is_symlink(folder / name)) throw Error("the file is a link", name);
  std::string content = read_file(folder / name);
  if (static_cast<std::int64_t>(content.size()) != wanted.at("size").whole() ||
      sha256(content) != wanted.at("sha256").text())
    throw Error("the file has another content than the manifest says", name);
  return content;
}

// A file with this content that no other user can change, because its folder is new and private.
class PrivateFile {
 public:
  explicit PrivateFile(const std::string& content) {
    std::string folder = (std::filesystem::temp_directory_path() / "fxcache-XXXXXX").string();
    if (!::mkdtemp(folder.data())) throw Error("no folder can be made", folder);
    folder_ = folder;
    std::ofstream stream(path(), std::ios::binary);
    if (!stream.write(content.data(), static_cast<std::streamsize>(content.size())).flush()) {
      remove();
      throw Error("the file cannot be written", path());
    }
  }
  PrivateFile(const PrivateFile&) = delete;
  PrivateFile& operator=(const PrivateFile&) = delete;
  ~PrivateFile() { remove(); }

  std::string path() const { return (folder_ / "graphs.pt2").string(); }

 private:
  void remove() const {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }

  std::filesystem::path folder_;
};

inline at::ScalarType dtype_of(const std::string& name) {
  static const std::map<std::string, at::ScalarType> known = {
      {"float64", at::kDouble}, {"F64", at::kDouble},   {"float32", at::kFloat},  {"F32", at::kFloat},
      {"float16", at::kHalf},   {"F16", at::kHalf},     {"bfloat16", at::kBFloat16}, {"BF16", at::kBFloat16},
      {"int64", at::kLong},     {"I64", at::kLong},     {"int32", at::kInt},      {"I32", at::kInt},
      {"int16", at::kShort},    {"I16", at::kShort},    {"int8", at::kChar},      {"I8", at::kChar},
      {"uint8", at::kByte},     {"U8", at::kByte},      {"bool", at::kBool},      {"BOOL", at::kBool}};
  auto found = known.find(name);
  if (found == known.end()) throw Error("this example does not read the dtype", name);
  return found->second;
}

// Returns the number of elements; throws if it exceeds what memory can hold.
inline std::int64_t elements(const std::vector<std::int64_t>& shape) {
  std::int64_t total = 1;
  for (std::int64_t size : shape)
    if (size < 0 || __builtin_mul_overflow(total, size, &total)) throw Error("the shape is not allowed", "safetensors");
  return total;
}

// Returns the tensors in the content of a safetensors file: a length of 8 bytes, JSON, raw data.
inline std::unordered_map<std::string, at::Tensor> read_tensors(const std::string& content, const std::string& where) {
  std::uint64_t length = 0;
  if (content.size() < 8) throw Error("the file is too short", where);
  std::memcpy(&length, content.data(), 8);  // little-endian, as this machine must be
  if (length > content.size() - 8) throw Error("the header is too long", where);
  const Json header = Json::parse(content.substr(8, length), where);
  const std::size_t start = 8 + length, size = content.size() - start;
  std::unordered_map<std::string, at::Tensor> found;
  for (const auto& [name, described] : header.object()) {
    if (name == "__metadata__") continue;
    const auto shape = described.at("shape").wholes(), offsets = described.at("data_offsets").wholes();
    at::Tensor tensor;
    std::int64_t bytes = 0;
    const auto dtype = dtype_of(described.at("dtype").text());
    if (__builtin_mul_overflow(elements(shape), static_cast<std::int64_t>(c10::elementSize(dtype)), &bytes) ||
        offsets.size() != 2 || offsets[0] < 0 || offsets[1] - offsets[0] != bytes ||
        static_cast<std::uint64_t>(offsets[1]) > size)
      throw Error("the data of a tensor are not where the header says", where + ": " + name);
    tensor = at::empty(shape, dtype);
    if (bytes) std::memcpy(tensor.data_ptr(), content.data() + start + offsets[0], bytes);
    found.emplace(name, tensor);
  }
  return found;
}

// Writes float32 tensors as safetensors.
inline void write_tensors(const std::filesystem::path& file, const std::map<std::string, at::Tensor>& tensors) {
  std::ostringstream header, data;
  for (const auto& [name, given] : tensors) {
    const at::Tensor tensor = given.to(at::kCPU, at::kFloat).contiguous();
    const auto from = static_cast<std::int64_t>(data.tellp());
    data.write(static_cast<const char*>(tensor.data_ptr()), static_cast<std::streamsize>(tensor.nbytes()));
    std::string shape;
    for (std::int64_t size : tensor.sizes()) {
      if (!shape.empty()) shape += ',';
      shape += std::to_string(size);
    }
    header << (header.tellp() > 0 ? "," : "{") << '"' << name << R"(":{"dtype":"F32","shape":[)" << shape
           << R"(],"data_offsets":[)" << from << ',' << from + static_cast<std::int64_t>(tensor.nbytes()) << "]}";
  }
  const std::string described = header.str() + (tensors.empty() ? "{}" : "}");
  const std::uint64_t length = described.size();
  std::ofstream stream(file, std::ios::binary);
  stream.write(reinterpret_cast<const char*>(&length), 8);
  stream << described << data.str();
  if (!stream) throw Error("the file cannot be written", file.string());
}

// ---- Checks -----------------------------------------------------------------------------------

// Whether the dimensions have this order in memory, without gaps.
inline bool is_dense(const at::Tensor& tensor, const std::vector<std::int64_t>& order) {
  std::int64_t step = 1;
  for (auto dim = order.rbegin(); dim != order.rend(); ++dim) {
    if (tensor.size(*dim) != 1 && tensor.stride(*dim) != step) return false;
    step *= tensor.size(*dim);
  }
  return true;
}

inline std::vector<std::int64_t> require_order(const Json& data, std::size_t dims, const std::string& where) {
  std::vector<std::int64_t> order = data.wholes(), sorted = order;
  std::sort(sorted.begin(), sorted.end());
  for (std::size_t dim = 0; dim < sorted.size(); ++dim)
    if (sorted[dim] != static_cast<std::int64_t>(dim)) throw Error("it does not order the dimensions", where);
  if (order.size() != dims) throw Error("it does not order the dimensions", where);
  return order;
}

// The value of a condition on sizes: `["<=", ["+", "s0", 1], 64]`.
inline std::int64_t value_of(const Json& data, const std::map<std::string, std::int64_t>& sizes, int depth = 0) {
  if (depth > 24) throw Error("a condition is nested too deeply", "conditions");
  if (data.is(Json::Kind::number)) return data.whole();
  if (data.is(Json::Kind::text)) {
    auto found = sizes.find(data.text());
    if (found == sizes.end()) throw Error("unknown size", data.text());
    return found->second;
  }
  const std::string& name = data.list().at(0).text();
  std::vector<std::int64_t> v;
  for (std::size_t i = 1; i < data.list().size(); ++i) v.push_back(value_of(data.list()[i], sizes, depth + 1));
  auto folded = [&](auto combine) {
    std::int64_t total = v.at(0);
    for (std::size_t i = 1; i < v.size(); ++i) total = combine(total, v[i]);
    return total;
  };
  auto divided = [&] {  // rounded down, as Python does
    if (v.at(1) == 0) throw Error("a division by zero", "conditions");
    return v[0] / v[1] - (v[0] % v[1] != 0 && (v[0] < 0) != (v[1] < 0));
  };
  if (name == "+") return folded([](auto a, auto b) { return a + b; });
  if (name == "*") return folded([](auto a, auto b) { return a * b; });
  if (name == "max") return folded([](auto a, auto b) { return std::max(a, b); });
  if (name == "min") return folded([](auto a, auto b) { return std::min(a, b); });
  if (name == "and") return folded([](auto a, auto b) { return a && b; });
  if (name == "or") return folded([](auto a, auto b) { return a || b; });
  if (name == "not") return !v.at(0);
  if (name == "floordiv") return divided();
  if (name == "mod") return v.at(0) - divided() * v.at(1);
  if (name == "==") return v.at(0) == v.at(1);
  if (name == "!=") return v.at(0) != v.at(1);
  if (name == "<") return v.at(0) < v.at(1);
  if (name == "<=") return v.at(0) <= v.at(1);
  if (name == ">") return v.at(0) > v.at(1);
  if (name == ">=") return v.at(0) >= v.at(1);
  throw Error("unknown condition", name);
}

// The sizes of one program that may vary.
struct Sizes {
  std::map<std::string, std::pair<std::int64_t, std::int64_t>> bounds;
  std::vector<Json> conditions;

  explicit Sizes(const Json& data) : conditions(data.at("conditions").list()) {
    for (const auto& [name, pair] : data.at("sizes").object()) {
      const Json& most = pair.list().at(1);
      bounds[name] = {pair.list().at(0).whole(), most.is(Json::Kind::null) ? INT64_MAX : most.whole()};
    }
  }

  void require(const std::map<std::string, std::int64_t>& values) const {
    for (const auto& [name, value] : values) {
      const auto& [least, most] = bounds.at(name);
      if (value < least || value > most) throw Error("the size is out of its bounds", name + "=" + std::to_string(value));
    }
    if (values.empty()) return;
    for (const Json& condition : conditions)
      if (!value_of(condition, values)) throw Error("a condition on the sizes does not hold", "conditions");
  }
};

// What an input must be. Machine code checks nothing itself.
struct Input {
  std::string name, device;
  bool cached;
  std::int64_t number;
  at::ScalarType dtype;
  std::vector<Json> shape;
  std::vector<std::int64_t> order;

  Input(const Json& data, const Sizes& sizes)
      : name(data.at("name").text()),
        device(data.at("device").text()),
        cached(data.at("kind").text() == "cached"),
        number(data.at("number").whole()),
        dtype(dtype_of(data.at("dtype").text())),
        shape(data.at("shape").list()),
        order(require_order(data.at("order"), shape.size(), name)) {
    for (const Json& size : shape)
      if (size.is(Json::Kind::text) && !sizes.bounds.count(size.text())) throw Error("unknown size", size.text());
  }

  void require(const at::Tensor& value, c10::Device place, std::map<std::string, std::int64_t>& sizes) const {
    if (!value.defined() || value.layout() != at::kStrided) throw Error("a dense tensor is expected", name);
    if (value.scalar_type() != dtype)
      throw Error(std::string("the dtype is ") + c10::toString(value.scalar_type()) + ", not " + c10::toString(dtype), name);
    const c10::Device wanted = device == "cpu" ? c10::Device(c10::kCPU) : place;
    if (value.device() != wanted) throw Error("it is on " + value.device().str() + ", not on " + wanted.str(), name);
    bool fits = value.dim() == static_cast<std::int64_t>(shape.size());
    for (std::size_t dim = 0; fits && dim < shape.size(); ++dim) {
      const std::int64_t size = value.size(static_cast<std::int64_t>(dim));
      const std::int64_t known = shape[dim].is(Json::Kind::text)
                                     ? sizes.emplace(shape[dim].text(), size).first->second
                                     : shape[dim].whole();
      fits = known == size;
    }
    if (!fits) throw Error("the shape is " + shown(value) + ", not " + expected_shape(sizes), name);
    if (!is_dense(value, order)) throw Error("the strides have another order, or gaps", name);
  }

 private:
  static std::string shown(const at::Tensor& value) {
    std::ostringstream text;
    text << value.sizes();
    return text.str();
  }

  // The shape in the manifest, with the sizes that are known by now.
  std::string expected_shape(const std::map<std::string, std::int64_t>& sizes) const {
    std::string text;
    for (const Json& size : shape) {
      if (!text.empty()) text += ", ";
      if (!size.is(Json::Kind::text)) text += std::to_string(size.whole());
      else if (const auto known = sizes.find(size.text()); known == sizes.end()) text += size.text();
      else text += std::to_string(known->second);
    }
    return "[" + text + "]";
  }
};

// ---- Graphs -----------------------------------------------------------------------------------

using Cache = std::map<std::int64_t, at::Tensor>;  // by the number of the cache point
using Weights = std::unordered_map<std::string, at::Tensor>;

// One compiled graph: the arguments of the call and cached values go in, results and new cached
// values come out.
class Graph {
 public:
  Graph(const std::string& package, const std::string& name, const Json& data, const Sizes& sizes,
        const Weights& weights, c10::Device device)
      : sizes_(sizes), device_(device), loader_(package, name, false, 1, device.is_cpu() ? -1 : device.index()) {
    for (const Json& input : data.at("inputs").list()) inputs_.emplace_back(input, sizes);
    for (const Json& output : data.at("outputs").list())
      outputs_.emplace_back(output.at("kind").text() == "cached", output.at("number").whole());
    std::unordered_map<std::string, at::Tensor> bound;
    for (const auto& [constant, described] : data.at("weights").object()) {
      auto found = weights.find(described.at("name").text());
      if (found == weights.end()) throw Error("the artifact lacks a weight", described.at("name").text());
      require_weight(found->second, described);
      bound.emplace(constant, found->second);
    }
    for (const std::string& constant : loader_.get_constant_fqns())
      if (!bound.count(constant)) throw Error("the code reads a weight that the manifest lacks", constant);
    // The weights stay where they are: all graphs read the same tensors.
    loader_.load_constants(bound, false, true, true);
  }

  // Runs the graph. Adds the new cached values to `cache`.
  std::vector<at::Tensor> operator()(const std::vector<at::Tensor>& arguments, Cache& cache) {
    std::vector<at::Tensor> inputs;
    std::map<std::string, std::int64_t> sizes;
    std::size_t used = 0;
    for (const Input& input : inputs_) {
      if (input.cached) {
        auto found = cache.find(input.number);
        if (found == cache.end()) throw Error("nothing is cached yet", input.name);
        inputs.push_back(found->second);
      } else {
        if (used >= arguments.size()) throw Error("an argument is missing", input.name);
        inputs.push_back(arguments[used++]);
      }
      input.require(inputs.back(), device_, sizes);
    }
    if (used != arguments.size()) throw Error("there are too many arguments", std::to_string(arguments.size()));
    sizes_.require(sizes);
    std::vector<at::Tensor> values = loader_.run(inputs), results;
    if (values.size() != outputs_.size()) throw Error("the code returns another number of values", "outputs");
    for (std::size_t i = 0; i < values.size(); ++i) {
      const auto& [cached, number] = outputs_[i];
      if (cached) cache[number] = values[i];
      else results.push_back(values[i]);
    }
    return results;
  }

 private:
  void require_weight(const at::Tensor& weight, const Json& described) const {
    const std::string& name = described.at("name").text();
    const auto shape = described.at("shape").wholes();
    if (weight.scalar_type() != dtype_of(described.at("dtype").text()) || weight.sizes() != at::IntArrayRef(shape) ||
        !is_dense(weight, require_order(described.at("order"), shape.size(), name)))
      throw Error("the weight has another dtype, shape or stride", name);
  }

  const Sizes& sizes_;
  c10::Device device_;
  torch::inductor::AOTIModelPackageLoader loader_;
  std::vector<Input> inputs_;
  std::vector<std::pair<bool, std::int64_t>> outputs_;
};

// ---- Artifacts --------------------------------------------------------------------------------

// An artifact with native code: its weights, its graphs and its tables of steps.
class Artifact {
 public:
  explicit Artifact(const std::filesystem::path& folder, c10::Device device = c10::kCPU) : device_(device) {
    const std::string content = read_file(folder / "manifest.json");
    const Json manifest = Json::parse(content, "manifest.json");
    const Json native = Json::parse(read_file(folder / "native" / "manifest.json"), "native/manifest.json");
    if (manifest.at("fxcache_artifact").whole() != FORMAT) throw Error("the artifact has another format", "manifest.json");
    if (native.at("fxcache_native").whole() != NATIVE_FORMAT)
      throw Error("the native code has another format", "native/manifest.json");
    if (native.at("artifact").text() != sha256(content))
      throw Error("the native code was made from another artifact", "native/manifest.json");
    require_target(native.at("target"));
    read_weights(folder, manifest);
    // libtorch opens the file by its path: a private copy is still what was checked.
    const PrivateFile package(listed_file(folder / "native", "graphs.pt2", native.at("files")));
    for (const Json& program : native.at("programs").list()) sizes_.push_back(std::make_unique<Sizes>(program));
    for (const auto& [name, data] : native.at("graphs").object()) {
      const Sizes& sizes = *sizes_.at(static_cast<std::size_t>(data.at("program").whole()));
      graphs_.emplace(name, std::make_unique<Graph>(package.path(), name, data, sizes, weights_, device_));
    }
    for (const Json& run : native.at("runs").list()) {
      std::vector<std::string> names;
      for (const Json& name : run.at("steps").list()) {
        if (!graphs_.count(name.text())) throw Error("a step runs an unknown graph", name.text());
        names.push_back(name.text());
      }
      tables_.emplace(std::make_pair(run.at("program").whole(), names.size()), names);
    }
  }

  // The name of the graph of each step of a run.
  const std::vector<std::string>& table(std::size_t steps, std::int64_t program = 0) const {
    auto found = tables_.find({program, steps});
    if (found == tables_.end()) throw Error("nothing was compiled for runs of this length", std::to_string(steps) + " steps");
    return found->second;
  }

  Graph& graph(const std::string& name) { return *graphs_.at(name); }
  c10::Device device() const { return device_; }

 private:
  // Machine code that was compiled for another machine may crash.
  void require_target(const Json& target) const {
    const std::string torch = target.at("torch").text();
    if (torch.substr(0, torch.find('+')) != TORCH_VERSION)
      throw Error("the code is for torch " + torch + ", and this is " TORCH_VERSION, "native/manifest.json: target");
    if (target.at("device").text() != c10::DeviceTypeName(device_.type(), true))
      throw Error("the code is for another device", target.at("device").text());
#if defined(__x86_64__)
    const std::string machine = "x86_64";
#elif defined(__aarch64__)
    const std::string machine = "aarch64";
#else
    const std::string machine = "unknown";
#endif
    if (target.at("machine").text() != machine) throw Error("the code is for another machine", target.at("machine").text());
    std::set<std::string> here;
    std::ifstream info("/proc/cpuinfo");
    for (std::string line; here.empty() && std::getline(info, line);) {
      if (line.rfind("flags", 0) != 0 && line.rfind("Features", 0) != 0) continue;
      std::istringstream words(line.substr(line.find(':') + 1));
      for (std::string word; words >> word;) here.insert(word);
    }
    for (const Json& feature : target.at("features").list())
      if (!here.count(feature.text())) throw Error("this CPU lacks what the code needs", feature.text());
  }

  void read_weights(const std::filesystem::path& folder, const Json& manifest) {
    std::map<std::string, std::unordered_map<std::string, at::Tensor>> files;
    std::map<std::string, at::Tensor> made;  // one tensor for weights that share memory
    for (const auto& [name, described] : manifest.at("weights").object()) {
      const std::string &file = described.at("file").text(), &key = described.at("key").text();
      if (file.empty()) throw Error("the artifact was exported without its weights", name);
      if (!files.count(file)) files[file] = read_tensors(listed_file(folder, file, manifest.at("files")), file);
      if (!files[file].count(key)) throw Error("the file lacks a tensor", file + ": " + key);
      const at::Tensor& stored = files[file].at(key);
      const auto order = require_order(described.at("order"), static_cast<std::size_t>(stored.dim()), name);
      std::string identity = file + '\n' + key;
      for (std::int64_t dim : order) identity += ' ' + std::to_string(dim);
      if (!made.count(identity)) {
        std::vector<std::int64_t> back(order.size());  // stored with its dimensions in this order
        for (std::size_t i = 0; i < order.size(); ++i) back[static_cast<std::size_t>(order[i])] = static_cast<std::int64_t>(i);
        made[identity] = stored.permute(back).to(device_);
      }
      const at::Tensor& weight = made.at(identity);
      if (weight.scalar_type() != dtype_of(described.at("dtype").text()) ||
          weight.sizes() != at::IntArrayRef(described.at("shape").wholes()))
        throw Error("the weight has another dtype or shape", name);
      weights_.emplace(name, weight);
    }
  }

  c10::Device device_;
  Weights weights_;
  std::vector<std::unique_ptr<Sizes>> sizes_;
  std::map<std::string, std::unique_ptr<Graph>> graphs_;
  std::map<std::pair<std::int64_t, std::size_t>, std::vector<std::string>> tables_;
};

// One run: its steps follow the table, and its cached values belong to it alone.
class Run {
 public:
  Run(Artifact& artifact, std::size_t steps, std::int64_t program = 0)
      : artifact_(artifact), table_(artifact.table(steps, program)) {}

  // Runs the next step. The arguments are the tensors of the call, in the order of the manifest.
  std::vector<at::Tensor> step(const std::vector<at::Tensor>& arguments) {
    if (next_ == table_.size()) throw Error("the run is over", std::to_string(next_) + " steps");
    c10::InferenceMode guard;
    std::vector<at::Tensor> results = artifact_.graph(table_[next_])(arguments, cache_);
    ++next_;
    return results;
  }

 private:
  Artifact& artifact_;
  const std::vector<std::string>& table_;
  Cache cache_;
  std::size_t next_ = 0;
};

}  // namespace fxcache
