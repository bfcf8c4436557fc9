// A stand-in for libamdhip64 and libhiprtc: device memory is the host's, work of a stream waits until somebody waits for it,
// hiprtc is the host's C++ compiler over the lanes of inference-gpu's `cpu/simt.h`. Every function can be made to fail, and everything that is handed out is
// counted.
//
// Stricter than the card: arguments of recorded launches are read when they run, memory of copies when they are done.
#include <dlfcn.h>
#include <elf.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <mutex>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#define API extern "C" __attribute__((visibility("default")))
typedef int Status;
using std::string;
using Work = std::function<Status()>;

enum { OK = 0, INVALID = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_DEVICE = 101, NO_BINARY = 209, NOT_FOUND = 500,
       NOT_READY = 600, LOST = 719, NOT_SUPPORTED = 801, CAPTURING = 900 };

// ---- State and faults

struct Graph { std::vector<Work> work; };
struct Stream { std::vector<Work> queue; Graph* recorded = nullptr; };
struct Event { Stream* stream = nullptr; size_t behind = 0; };
struct Module { void* library; std::map<string, unsigned> sizes; std::map<string, struct Function*> functions; };
// Grid, lanes of a block, their order, a seed, arguments; gives what went wrong, or null.
typedef const char* Run(const unsigned*, unsigned, int, unsigned, void**);
struct Function { Run* run; std::vector<unsigned> sizes; };
struct Described { string name; std::vector<unsigned> sizes; unsigned max_block; };
struct Program { string source, log, code; std::vector<Described> kernels; };

static std::recursive_mutex lock;
static std::map<string, long> settings;                      // fake_set
static std::map<string, std::pair<long, Status>> faults;     // by function: calls until it fails, and with what
static std::map<char*, size_t> memory;
static std::set<void*> pinned;
static std::set<Stream*> streams;
static std::map<string, long> alive;                         // events, modules, graphs, execs, programs
static string arch = "gfx1100";
static bool lost = false;
static thread_local int current = 0;

static long setting(const char* key, long otherwise) {
    auto found = settings.find(key);
    return found == settings.end() ? otherwise : found->second;
}

// What a call of `name` fails with, before it does anything.
static Status fault(const char* name) {
    if (lost) return LOST;
    auto found = faults.find(name);
    if (found == faults.end() || found->second.first-- > 0) return OK;
    Status status = found->second.second;
    faults.erase(found);
    if (status == LOST) lost = true;
    return status;
}

#define CALL std::lock_guard<std::recursive_mutex> guard(lock); if (Status status = fault(__func__)) return status
// Releases are done even where they fail, so that what is counted is what was not released.
#define RELEASE std::lock_guard<std::recursive_mutex> guard(lock); Status status = fault(__func__)

API void fake_set(const char* key, long value) { std::lock_guard<std::recursive_mutex> guard(lock); settings[key] = value; }
API void fake_arch(const char* name) { arch = name; }
API void fake_fail(const char* function, long nth, int status) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    faults[function] = {nth, status};
}
API void fake_restart() { lost = false; }
// Whether the fault of `function` is still to come.
API long fake_pending(const char* function) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    return faults.erase(function);
}
// Everything that was handed out and not given back.
API long fake_alive() {
    std::lock_guard<std::recursive_mutex> guard(lock);
    long count = (long)(memory.size() + pinned.size() + streams.size());
    for (auto& [_, n] : alive) count += n;
    return count;
}

// Sizes of a kernel's parameters.
static std::vector<unsigned> sizes_of(void* library, const string& name) {
    auto* sizes = (const unsigned char* (*)())dlsym(library, ("simt_sizes_" + name).c_str());
    std::vector<unsigned> all;
    for (const unsigned char* size = sizes ? sizes() : (const unsigned char*)""; *size; size++) all.push_back(*size);
    return all;
}

static bool within(const void* pointer, size_t bytes) {
    auto next = memory.upper_bound((char*)pointer);
    if (next == memory.begin()) return false;
    --next;
    return (char*)pointer + bytes <= next->first + next->second;
}

static Status drain(Stream* stream, size_t count) {
    Status status = lost ? LOST : OK;
    std::vector<Work> now(stream->queue.begin(), stream->queue.begin() + count);
    stream->queue.erase(stream->queue.begin(), stream->queue.begin() + count);
    for (auto& work : now) if (!status) status = work();
    if (status == LOST) lost = true;
    return status;
}

static Status drain_all() {
    Status status = OK;
    for (auto* stream : streams) if (Status s = drain(stream, stream->queue.size())) status = s;
    return status;
}

static Status enqueue(Stream* stream, Work work, bool is_launch = false) {
    if (!streams.count(stream)) return INVALID;
    if (stream->recorded && !is_launch) return CAPTURING;
    (stream->recorded ? stream->recorded->work : stream->queue).push_back(std::move(work));
    return OK;
}

// ---- Devices

API Status hipInit(unsigned) { CALL; return setting("devices", 1) ? OK : NO_DEVICE; }
API Status hipDriverGetVersion(int* v) { CALL; *v = (int)setting("version", 70253211); return OK; }
API Status hipRuntimeGetVersion(int* v) { CALL; *v = (int)setting("version", 70253211); return OK; }
API Status hipGetDeviceCount(int* n) { CALL; *n = (int)setting("devices", 1); return *n ? OK : NO_DEVICE; }
API Status hipGetDevice(int* d) { CALL; *d = current; return OK; }
API Status hipSetDevice(int d) { CALL; if (d < 0 || d >= setting("devices", 1)) return INVALID_DEVICE; current = d; return OK; }
API Status hipSetDeviceFlags(unsigned) { CALL; return OK; }
API Status hipDeviceSynchronize() { CALL; return drain_all(); }
API Status hipDeviceGet(int* d, int ordinal) { CALL; *d = ordinal; return OK; }
API Status hipDeviceGetName(char* name, int len, int) { CALL; snprintf(name, len, "Stand-in"); return OK; }
API Status hipDeviceGetUuid(char* uuid, int d) { CALL; char t[17]; snprintf(t, 17, "00112233445566%02x", d); memcpy(uuid, t, 16); return OK; }
API Status hipDeviceGetPCIBusId(char* id, int len, int d) { CALL; snprintf(id, len, "0000:%02x:00.0", d + 3); return OK; }
API Status hipDeviceTotalMem(size_t* bytes, int) { CALL; *bytes = setting("memory", 1 << 30); return OK; }
API Status hipDeviceGetAttribute(int* value, int which, int) {
    CALL;
    switch (which) {
        case 16: *value = (int)setting("integrated", 0); return OK;
        case 56: *value = 1024; return OK;
        case 63: *value = (int)setting("multiprocessors", 48); return OK;
        case 74: *value = 65536; return OK;
        case 87: *value = (int)setting("wave", 32); return OK;
    }
    return INVALID;
}
API Status hipGetDevicePropertiesR0600(char* p, int d) { CALL; if (d >= setting("devices", 1)) return INVALID_DEVICE; strcpy(p + 1160, arch.c_str()); return OK; }
API Status hipGetDeviceProperties(char* p, int) { CALL; strcpy(p + 396, arch.c_str()); return OK; }
static size_t used() { size_t n = 0; for (auto& [_, bytes] : memory) n += bytes; return n; }
API Status hipMemGetInfo(size_t* free, size_t* total) { CALL; *total = setting("memory", 1 << 30); *free = *total - used(); return OK; }
API const char* hipGetErrorName(int) { return "hipErrorOfStandIn"; }
API const char* hipGetErrorString(int) { return "injected"; }
API Status hipGetLastError() { return OK; }
API Status hipPeekAtLastError() { return OK; }

// ---- Streams and events

API Status hipStreamCreateWithFlags(Stream** s, unsigned) { CALL; streams.insert(*s = new Stream); return OK; }
API Status hipStreamCreateWithPriority(Stream** s, unsigned f, int) { return hipStreamCreateWithFlags(s, f); }
API Status hipStreamDestroy(Stream* s) { RELEASE; if (!streams.erase(s)) return INVALID; delete s; return status; }
API Status hipStreamQuery(Stream* s) { CALL; return s->queue.empty() ? OK : NOT_READY; }
API Status hipStreamSynchronize(Stream* s) { CALL; if (!streams.count(s)) return INVALID; return s->recorded ? CAPTURING : drain(s, s->queue.size()); }
API Status hipStreamWaitEvent(Stream*, Event*, unsigned) { CALL; return NOT_SUPPORTED; }
API Status hipEventCreateWithFlags(Event** e, unsigned) { CALL; *e = new Event; alive["events"]++; return OK; }
API Status hipEventDestroy(Event* e) { RELEASE; delete e; alive["events"]--; return status; }
API Status hipEventRecord(Event* e, Stream* s) { CALL; e->stream = s; e->behind = s->queue.size(); return OK; }
API Status hipEventQuery(Event* e) { CALL; return e->stream && !e->stream->queue.empty() ? NOT_READY : OK; }
API Status hipEventSynchronize(Event* e) {
    CALL;
    if (!e->stream || !streams.count(e->stream)) return OK;
    return drain(e->stream, std::min(e->behind, e->stream->queue.size()));
}
API Status hipEventElapsedTime(float* ms, Event*, Event*) { CALL; *ms = 1; return OK; }

// ---- Memory

static Status allocate(void** p, size_t bytes) {
    if (used() + bytes > (size_t)setting("memory", 1 << 30)) return OUT_OF_MEMORY;
    *p = aligned_alloc(256, (bytes + 255) / 256 * 256);
    memset(*p, 0xff, bytes);
    memory[(char*)*p] = bytes;
    return OK;
}
API Status hipMalloc(void** p, size_t bytes) { CALL; return allocate(p, bytes); }
API Status hipExtMallocWithFlags(void** p, size_t bytes, unsigned) { CALL; return allocate(p, bytes); }
API Status hipFree(void* p) {
    RELEASE;
    drain_all();
    if (!memory.erase((char*)p)) return INVALID;
    free(p);
    return status;
}
API Status hipHostMalloc(void** p, size_t bytes, unsigned) { CALL; *p = malloc(bytes); pinned.insert(*p); return OK; }
API Status hipHostFree(void* p) { RELEASE; if (!pinned.erase(p)) return INVALID; free(p); return status; }
API Status hipHostRegister(void*, size_t, unsigned) { CALL; return OK; }
API Status hipHostUnregister(void*) { CALL; return OK; }
API Status hipHostGetDevicePointer(void** d, void* h, unsigned) { CALL; *d = h; return OK; }
static Status copy(void* to, const void* from, size_t bytes, Stream* s) {
    return enqueue(s, [=] { memcpy(to, from, bytes); return OK; });
}
API Status hipMemcpyAsync(void* t, const void* f, size_t n, int, Stream* s) { CALL; return copy(t, f, n, s); }
API Status hipMemcpyHtoDAsync(void* t, const void* f, size_t n, Stream* s) { CALL; return within(t, n) ? copy(t, f, n, s) : INVALID; }
API Status hipMemcpyDtoHAsync(void* t, const void* f, size_t n, Stream* s) { CALL; return within(f, n) ? copy(t, f, n, s) : INVALID; }
API Status hipMemcpyDtoDAsync(void* t, const void* f, size_t n, Stream* s) { CALL; return within(t, n) && within(f, n) ? copy(t, f, n, s) : INVALID; }
API Status hipMemsetAsync(void* t, int v, size_t n, Stream* s) { CALL; return within(t, n) ? enqueue(s, [=] { memset(t, v, n); return OK; }) : INVALID; }
API Status hipMemsetD16Async(void*, unsigned short, size_t, Stream*) { CALL; return NOT_SUPPORTED; }
API Status hipMemsetD32Async(void*, int, size_t, Stream*) { CALL; return NOT_SUPPORTED; }

// ---- Modules and launches

// The library inside a code object of `hiprtcCompileProgram`: its second segment.
API Status hipModuleLoadData(Module** m, const void* image) {
    CALL;
    auto* header = (const Elf64_Ehdr*)image;
    auto* segment = (const Elf64_Phdr*)((const char*)image + header->e_phoff) + 1;
    char path[] = P_tmpdir "/fake-hip-module-XXXXXX";  // of its own: dlopen takes a name that it knows for the same file
    int file = mkstemp(path);
    const char* bytes = (const char*)image + segment->p_offset;
    for (size_t at = 0; at < segment->p_filesz;) at += write(file, bytes + at, segment->p_filesz - at);
    void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    close(file);
    unlink(path);
    if (!library) return NO_BINARY;
    *m = new Module{library, {}, {}};
    alive["modules"]++;
    return OK;
}
API Status hipModuleUnload(Module* m) {
    RELEASE;
    drain_all();
    for (auto& [_, function] : m->functions) delete function;
    dlclose(m->library);
    delete m;
    alive["modules"]--;
    return status;
}
API Status hipModuleGetFunction(Function** f, Module* m, const char* name) {
    CALL;
    auto& function = m->functions[name];
    if (!function) {
        auto* run = (Run*)dlsym(m->library, (string("simt_") + name).c_str());
        if (!run) { m->functions.erase(name); return NOT_FOUND; }
        function = new Function{run, sizes_of(m->library, name)};
    }
    *f = function;
    return OK;
}
API Status hipModuleGetGlobal(void**, size_t*, Module*, const char*) { CALL; return NOT_FOUND; }
API Status hipModuleLaunchKernel(Function* f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                                 unsigned, Stream* s, void** arguments, void**) {
    CALL;
    if (!gx || !gy || !gz || !bx || by != 1 || bz != 1 || bx > 1024) return 9;
    std::vector<void*> pointers(arguments, arguments + f->sizes.size());
    std::vector<string> values;
    if (!s->recorded)
        for (size_t i = 0; i < pointers.size(); i++) values.emplace_back((char*)pointers[i], f->sizes[i]);
    return enqueue(s, [=] {
        if (Status status = fault("kernel")) return status;
        std::vector<void*> now = pointers;
        for (size_t i = 0; i < values.size(); i++) now[i] = (void*)values[i].data();
        unsigned grid[3] = {gx, gy, gz};
        const char* wrong = f->run(grid, bx, (int)setting("order", 2), (unsigned)settings["launches"]++, now.data());
        if (wrong) fprintf(stderr, "%s\n", wrong);
        return wrong ? (Status)LOST : (Status)OK;
    }, true);
}
API Status hipModuleOccupancyMaxActiveBlocksPerMultiprocessor(int* n, Function*, int, size_t) { CALL; *n = 1; return OK; }
API Status hipFuncGetAttribute(int* value, int, Function*) { CALL; *value = 0; return OK; }

// ---- Graphs

API Status hipStreamBeginCapture(Stream* s, int mode) {
    CALL;
    if (s->recorded || mode != 1) return INVALID;
    s->recorded = new Graph;
    alive["graphs"]++;
    return OK;
}
API Status hipStreamEndCapture(Stream* s, Graph** g) {
    RELEASE;
    if (!s->recorded) return CAPTURING;
    *g = s->recorded;
    s->recorded = nullptr;
    if (status) { delete *g; *g = nullptr; alive["graphs"]--; }
    return status;
}
API Status hipStreamIsCapturing(Stream* s, int* status) { CALL; *status = s->recorded != nullptr; return OK; }
API Status hipThreadExchangeStreamCaptureMode(int*) { CALL; return OK; }
API Status hipGraphInstantiate(Graph** e, Graph* g, void**, char*, size_t) { CALL; if (g->work.empty()) return INVALID; *e = new Graph(*g); alive["execs"]++; return OK; }
API Status hipGraphInstantiateWithFlags(Graph** e, Graph* g, unsigned long long) { return hipGraphInstantiate(e, g, nullptr, nullptr, 0); }
API Status hipGraphUpload(Graph*, Stream*) { CALL; return OK; }
API Status hipGraphLaunch(Graph* e, Stream* s) { CALL; for (auto& work : e->work) if (Status status = enqueue(s, work, true)) return status; return OK; }
API Status hipGraphGetNodes(Graph* g, void**, size_t* n) { CALL; *n = g->work.size(); return OK; }
API Status hipGraphNodeGetType(void*, int* kind) { CALL; *kind = 0; return OK; }
API Status hipGraphDestroy(Graph* g) { RELEASE; delete g; alive["graphs"]--; return status; }
API Status hipGraphExecDestroy(Graph* e) { RELEASE; delete e; alive["execs"]--; return status; }

// ---- The compiler

// MessagePack: maps, lists, texts and numbers of up to 32 bits.
struct Pack {
    string out;
    Pack& head(uint8_t mark, size_t n) { out += (char)mark; for (int shift : {24, 16, 8, 0}) out += (char)(n >> shift); return *this; }
    Pack& map(size_t n) { return head(0xdf, n); }
    Pack& list(size_t n) { return head(0xdd, n); }
    Pack& number(size_t n) { return head(0xce, n); }
    Pack& text(const string& t) { head(0xdb, t.size()); out += t; return *this; }
};

static string metadata(const std::vector<Described>& kernels, const string& target) {
    Pack pack;
    string triple = setting("newer_triple", 0) ? "amdgcn-amd-amdhsa-unknown-" : "amdgcn-amd-amdhsa--";
    pack.map(2).text("amdhsa.target").text(triple + target).text("amdhsa.kernels").list(kernels.size());
    for (auto& kernel : kernels) {
        pack.map(5).text(".name").text(kernel.name);
        pack.text(".group_segment_fixed_size").number(0).text(".private_segment_fixed_size").number(0);
        pack.text(".max_flat_workgroup_size").number(kernel.max_block).text(".args").list(kernel.sizes.size());
        size_t at = 0;
        for (unsigned size : kernel.sizes) {
            at = (at + size - 1) / size * size;
            pack.map(2).text(".offset").number(at).text(".size").number(size);
            at += size;
        }
    }
    return pack.out;
}

// An ELF file of two segments: a note with the metadata, and the library.
static string code_object(const string& metadata, const string& library) {
    string note;
    for (uint32_t word : {7u, (uint32_t)metadata.size(), 32u}) note.append((char*)&word, 4);
    note.append("AMDGPU\0\0", 8).append(metadata);
    note.resize((note.size() + 3) / 4 * 4);
    Elf64_Ehdr header = {};
    memcpy(header.e_ident, "\x7f" "ELF\x02\x01\x01\x40", 8);
    header.e_type = ET_DYN; header.e_machine = 224; header.e_version = 1; header.e_phoff = sizeof header;
    header.e_ehsize = sizeof header; header.e_phentsize = sizeof(Elf64_Phdr); header.e_phnum = 2; header.e_shentsize = 64;
    Elf64_Phdr segments[2] = {};
    segments[0].p_type = PT_NOTE; segments[0].p_offset = sizeof header + sizeof segments;
    segments[0].p_filesz = note.size(); segments[0].p_align = 4;
    segments[1].p_type = PT_LOAD; segments[1].p_offset = segments[0].p_offset + note.size();
    segments[1].p_filesz = library.size(); segments[1].p_align = 1;
    return string((char*)&header, sizeof header) + string((char*)segments, sizeof segments) + note + library;
}

static string contents(const string& path) {
    std::ifstream file(path, std::ios::binary);
    std::stringstream all;
    all << file.rdbuf();
    return all.str();
}

static void write_file(const string& path, const string& text) { std::ofstream(path) << text; }

// Which emulated matrix instructions an architecture has, as `inference_gpu` says it for its own driver.
static string tile(const string& arch) {
    if (arch == "gfx908" || arch == "gfx90a" || arch == "gfx942" || arch == "gfx950") return "9";
    if (arch.size() == 7 && arch.rfind("gfx11", 0) == 0) return "11";
    return arch == "gfx1200" || arch == "gfx1201" ? "12" : "0";
}

// Kernels are what `KERNEL(lanes) name(` says once all macros are replaced; then all is compiled.
static int compile(Program& p, const string& base, const string& target, const string& defines) {
    string command = "c++ -std=c++17 -w -DSIMT_CPU -DSIMT_TILE=" + tile(target) + defines, log = " 2> " + base + "/log";
    write_file(base + "/names.cpp", "#define KERNEL(lanes) FAKE_KERNEL(lanes)\n" + p.source);
    if (int failed = system((command + " -E -P -o " + base + "/names " + base + "/names.cpp" + log).c_str())) return failed;
    std::regex pattern("FAKE_KERNEL\\((\\d+)\\)\\s*(\\w+)\\s*\\(");
    string names = contents(base + "/names"), exports;
    for (std::sregex_iterator i(names.begin(), names.end(), pattern), end; i != end; ++i) {
        p.kernels.push_back({(*i)[2], {}, (unsigned)std::stoul((*i)[1])});
        exports += "SIMT_EXPORT(" + p.kernels.back().name + ")\n";
    }
    string text = contents(SIMT) + "\n#line 1 \"kernels.hip\"\n" + p.source + "\n" + exports;
    command += " -O2 -shared -fPIC -fvisibility=hidden -fno-gnu-unique -o ";
    // What was compiled once is kept: tests compile the same again and again.
    string kept = P_tmpdir "/fake-hip-" + std::to_string(std::hash<string>()(command + text)) + ".so";
    if (access(kept.c_str(), R_OK)) {
        write_file(base + "/k.cpp", text);
        if (int failed = system((command + base + "/k.so " + base + "/k.cpp" + log).c_str())) return failed;
        write_file(base + "/kept", contents(base + "/k.so"));
        rename((base + "/kept").c_str(), kept.c_str());
    } else {
        write_file(base + "/k.so", contents(kept));
    }
    void* library = dlopen((base + "/k.so").c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library) return 1;
    for (auto& kernel : p.kernels) kernel.sizes = sizes_of(library, kernel.name);
    dlclose(library);
    return 0;
}

API Status hiprtcVersion(int* major, int* minor) { CALL; *major = 9; *minor = 0; return OK; }
API Status hiprtcCreateProgram(Program** p, const char* source, const char*, int, const char**, const char**) {
    CALL;
    *p = new Program{source, "", "", {}};
    alive["programs"]++;
    return OK;
}
API Status hiprtcCompileProgram(Program* p, int count, const char** options) {
    CALL;
    const char* how = getenv("FAKE_HIP_COMPILE");
    if (how && !strcmp(how, "abort")) { fprintf(stderr, "LLVM ERROR: unknown target\n"); abort(); }
    if (how && !strcmp(how, "hang")) for (;;) pause();
    if (how && !strcmp(how, "garbage")) { p->code = "no code"; return OK; }
    settings["compiled"]++;
    string target, defines;
    for (int i = 0; i < count; i++) {
        string option = options[i];
        if (option.rfind("--offload-arch=", 0) == 0) target = option.substr(15);
        if (option.rfind("-D", 0) == 0) defines += " '" + option + "'";
    }
    char folder[] = P_tmpdir "/fake-hip-XXXXXX";
    if (!mkdtemp(folder)) return 2;
    string base = folder;
    int failed = compile(*p, base, target, defines);
    p->log = contents(base + "/log");
    if (!failed) p->code = code_object(metadata(p->kernels, target), contents(base + "/k.so"));
    for (const char* name : {"/k.cpp", "/names.cpp", "/names", "/k.so", "/log"}) remove((base + name).c_str());
    rmdir(folder);
    return failed ? 6 : 0;
}
API Status hiprtcDestroyProgram(Program** p) { RELEASE; delete *p; *p = nullptr; alive["programs"]--; return status; }
API Status hiprtcGetProgramLogSize(Program* p, size_t* n) { CALL; *n = p->log.size(); return OK; }
API Status hiprtcGetProgramLog(Program* p, char* log) { CALL; memcpy(log, p->log.data(), p->log.size()); return OK; }
API Status hiprtcGetCodeSize(Program* p, size_t* n) { CALL; *n = p->code.size(); return OK; }
API Status hiprtcGetCode(Program* p, char* code) { CALL; memcpy(code, p->code.data(), p->code.size()); return OK; }
API const char* hiprtcGetErrorString(int) { return "HIPRTC_ERROR_OF_STAND_IN"; }
API long fake_compiled() { return setting("compiled", 0); }
