// uWebSockets as a peer: /echo and /topics?topic=NAME, one thread, no compression, no TLS.
#include "App.h"

#include <cstdlib>
#include <cstring>
#include <iostream>
#include <string>

namespace {

constexpr unsigned int kMaxMessage = 16 * 1024 * 1024;
// High enough that no message of a measurement is ever dropped.
constexpr unsigned int kMaxBackpressure = 256 * 1024 * 1024;
constexpr unsigned short kIdleSeconds = 120;

struct Echo {};

struct Subscriber {
    std::string topic;
};

// "--bind HOST:PORT" is the whole command line, as for every other peer.
bool parseBind(int argc, char **argv, std::string &host, int &port) {
    if (argc != 3 || std::strcmp(argv[1], "--bind") != 0) {
        return false;
    }
    const std::string address = argv[2];
    const auto colon = address.rfind(':');
    if (colon == std::string::npos) {
        return false;
    }
    host = address.substr(0, colon);
    char *end = nullptr;
    port = static_cast<int>(std::strtol(address.c_str() + colon + 1, &end, 10));
    return *end == '\0';
}

} // namespace

int main(int argc, char **argv) {
    std::string host;
    int port = 0;
    if (!parseBind(argc, argv, host, port)) {
        std::cerr << "usage: uws --bind HOST:PORT" << std::endl;
        return 2;
    }
    uWS::App app;
    app.ws<Echo>("/echo", {
        .compression = uWS::DISABLED,
        .maxPayloadLength = kMaxMessage,
        .idleTimeout = kIdleSeconds,
        .maxBackpressure = kMaxBackpressure,
        .message = [](auto *ws, std::string_view message, uWS::OpCode opCode) { ws->send(message, opCode); },
    });
    app.ws<Subscriber>("/topics", {
        .compression = uWS::DISABLED,
        .maxPayloadLength = kMaxMessage,
        .idleTimeout = kIdleSeconds,
        .maxBackpressure = kMaxBackpressure,
        .upgrade = [](auto *res, auto *req, auto *context) {
            res->template upgrade<Subscriber>({.topic = std::string(req->getQuery("topic"))},
                                              req->getHeader("sec-websocket-key"),
                                              req->getHeader("sec-websocket-protocol"),
                                              req->getHeader("sec-websocket-extensions"), context);
        },
        .open = [](auto *ws) { ws->subscribe(ws->getUserData()->topic); },
        // The app's publish reaches the sender too; the socket's own would leave it out.
        .message = [&app](auto *ws, std::string_view message, uWS::OpCode opCode) {
            app.publish(ws->getUserData()->topic, message, opCode);
        },
    });
    bool listening = false;
    app.listen(host, port, [&](us_listen_socket_t *socket) {
        if (socket == nullptr) {
            std::cerr << "uws: cannot listen on " << host << ":" << port << std::endl;
            return;
        }
        listening = true;
        std::cout << "listening on " << host << ":"
                  << us_socket_local_port(0, reinterpret_cast<us_socket_t *>(socket)) << std::endl;
    });
    app.run();
    return listening ? 0 : 1;
}
