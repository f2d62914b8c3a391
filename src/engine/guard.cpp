// Where C++ ends: what llama.cpp throws, and assertions that fail in it, become a text. guard.rs says more.

#include <cstddef>
#include <cstdio>
#include <exception>
#include <new>

typedef void (*ggml_abort_callback_t)(const char *text);
extern "C" ggml_abort_callback_t ggml_set_abort_callback(ggml_abort_callback_t callback);

namespace {

// No std::exception, so that llama.cpp's own handlers let it pass.
struct failed_assertion {
    char text[1024];
};

thread_local int depth = 0;
ggml_abort_callback_t before = nullptr;

// ggml aborts when this returns.
void on_abort(const char *text) {
    if (depth > 0) {
        failed_assertion failed;
        std::snprintf(failed.text, sizeof failed.text, "%s", text);
        throw failed;
    }
    if (before != nullptr) {
        before(text);
    }
}

}  // namespace

extern "C" void tiller_guard_install() { before = ggml_set_abort_callback(on_abort); }

// 0: `body` returned; 1: it threw; 2: an assertion failed. Then `what`, of `size` bytes, says why.
extern "C" int tiller_guarded(void (*body)(void *), void *user, char *what, size_t size) {
    int fault = 0;
    ++depth;
    try {
        body(user);
    } catch (const failed_assertion &failed) {
        std::snprintf(what, size, "%s", failed.text);
        fault = 2;
    } catch (const std::bad_alloc &) {
        std::snprintf(what, size, "out of memory");
        fault = 1;
    } catch (const std::exception &thrown) {
        std::snprintf(what, size, "%s", thrown.what());
        fault = 1;
    } catch (...) {
        std::snprintf(what, size, "an exception of an unknown type");
        fault = 1;
    }
    --depth;
    return fault;
}
