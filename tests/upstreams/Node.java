// A node of a cluster in Java: the HTTP server of the JDK, and WebSocket on a port of its own, since that server has no
// upgrade. It has the main parts of node.py.
//
// usage: java Node.java NAME HOST HTTP-PORT WEBSOCKET-PORT
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.BufferedInputStream;
import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.Executors;

public class Node {
    // As in node.py.
    static final int BLOCK_SIZE = 65521;
    static String name;

    static byte[] block(int seed) {
        byte[] data = new byte[BLOCK_SIZE];
        int state = seed;
        for (int at = 0; at < data.length; at++) {
            state = state * 1664525 + 1013904223;
            data[at] = (byte) (state >>> 24);
        }
        return data;
    }

    static Map<String, String> query(String query) {
        Map<String, String> pairs = new HashMap<>();
        for (String pair : (query == null ? "" : query).split("&")) {
            int at = pair.indexOf('=');
            pairs.put(at < 0 ? pair : pair.substring(0, at), at < 0 ? "" : pair.substring(at + 1));
        }
        return pairs;
    }

    static void reply(HttpExchange exchange, int status, String text) throws IOException {
        byte[] data = text.getBytes(StandardCharsets.UTF_8);
        boolean isEmpty = exchange.getRequestMethod().equals("HEAD") || data.length == 0 || status == 204 || status == 304;
        if (exchange.getRequestMethod().equals("HEAD")) {
            exchange.getResponseHeaders().set("Content-Length", "" + data.length);
        }
        exchange.sendResponseHeaders(status, isEmpty ? -1 : data.length);
        if (!isEmpty) {
            exchange.getResponseBody().write(data);
        }
    }

    static void bytes(HttpExchange exchange, String path, Map<String, String> query) throws Exception {
        long size = Long.parseLong(path.split("/")[2]);
        byte[] data = block(Integer.parseInt(query.getOrDefault("seed", "1")));
        MessageDigest digest = MessageDigest.getInstance("SHA-256");
        for (long left = size; left > 0; left -= data.length) {
            digest.update(data, 0, (int) Math.min(left, data.length));
        }
        boolean isChunked = query.getOrDefault("mode", "length").equals("chunked");
        exchange.getResponseHeaders().set("X-Sha256", HexFormat.of().formatHex(digest.digest()));
        if (exchange.getRequestMethod().equals("HEAD")) {
            exchange.getResponseHeaders().set("Content-Length", "" + size);
            exchange.sendResponseHeaders(200, -1);
            return;
        }
        exchange.sendResponseHeaders(200, isChunked ? 0 : size == 0 ? -1 : size);
        OutputStream out = exchange.getResponseBody();
        for (long left = size; left > 0; left -= data.length) {
            out.write(data, 0, (int) Math.min(left, data.length));
        }
    }

    static void serve(HttpExchange exchange) throws Exception {
        String target = exchange.getRequestURI().toString();
        String path = exchange.getRequestURI().getRawPath();
        Map<String, String> query = query(exchange.getRequestURI().getRawQuery());
        exchange.getResponseHeaders().set("X-Node", name);
        exchange.getResponseHeaders().set("X-Target", target);
        MessageDigest digest = MessageDigest.getInstance("SHA-256");
        byte[] buffer = new byte[65536];
        long size = 0;
        for (int got; (got = exchange.getRequestBody().read(buffer)) >= 0; size += got) {
            digest.update(buffer, 0, got);
        }
        String hash = HexFormat.of().formatHex(digest.digest());
        if (path.startsWith("/echo") || path.startsWith("/rpc")) {
            StringBuilder text = new StringBuilder();
            text.append("node: " + name + "\nmethod: " + exchange.getRequestMethod() + "\ntarget: " + target + "\n");
            new TreeMap<>(exchange.getRequestHeaders()).forEach((field, values) -> {
                for (String value : values) {
                    text.append("field: " + field + ": " + value + "\n");
                }
            });
            reply(exchange, 200, text + "size: " + size + "\nsha256: " + hash + "\n");
        } else if (path.startsWith("/bytes/")) {
            bytes(exchange, path, query);
        } else if (path.equals("/sink")) {
            reply(exchange, 200, size + " " + hash + "\n");
        } else if (path.startsWith("/status/")) {
            reply(exchange, Integer.parseInt(path.split("/")[2]), "status\n");
        } else if (path.equals("/redirect")) {
            exchange.getResponseHeaders().set("Location", query.get("to"));
            reply(exchange, 302, "");
        } else if (path.equals("/cookie")) {
            exchange.getResponseHeaders().add("Set-Cookie", "rpcid=1." + name + "; Path=" + query.get("path") + "; HttpOnly");
            exchange.getResponseHeaders().add("Set-Cookie", "other=1");
            reply(exchange, 200, "");
        } else {
            reply(exchange, 200, "page of " + name + "\n");
        }
    }

    /** Sends a frame that is not masked. */
    static void send(OutputStream out, int opcode, byte[] payload) throws IOException {
        ByteBuffer head = ByteBuffer.allocate(10).put((byte) (0x80 | opcode));
        if (payload.length < 126) {
            head.put((byte) payload.length);
        } else if (payload.length < 65536) {
            head.put((byte) 126).putShort((short) payload.length);
        } else {
            head.put((byte) 127).putLong(payload.length);
        }
        ByteArrayOutputStream whole = new ByteArrayOutputStream();
        whole.write(head.array(), 0, head.position());
        whole.write(payload);
        out.write(whole.toByteArray());
        out.flush();
    }

    static String line(DataInputStream in) throws IOException {
        StringBuilder line = new StringBuilder();
        while (true) {
            char letter = (char) in.readUnsignedByte();
            if (letter == '\n') {
                return line.toString().strip();
            }
            line.append(letter);
        }
    }

    static void converse(Socket socket) throws Exception {
        DataInputStream in = new DataInputStream(new BufferedInputStream(socket.getInputStream()));
        OutputStream out = socket.getOutputStream();
        String target = line(in).split(" ")[1];
        Map<String, String> fields = new TreeMap<>(String.CASE_INSENSITIVE_ORDER);
        for (String line; !(line = line(in)).isEmpty();) {
            fields.put(line.substring(0, line.indexOf(':')), line.substring(line.indexOf(':') + 1).strip());
        }
        List<String> head = new ArrayList<>(List.of("X-Node: " + name, "X-Target: " + target));
        if (!target.startsWith("/websocket")) {
            String text = "no WebSocket here\n";
            head.addAll(0, List.of("HTTP/1.1 403 Forbidden"));
            head.addAll(List.of("Content-Length: " + text.length(), "Connection: close", "", text));
            out.write(String.join("\r\n", head).getBytes(StandardCharsets.UTF_8));
            return;
        }
        String key = fields.get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
        byte[] hash = MessageDigest.getInstance("SHA-1").digest(key.getBytes(StandardCharsets.UTF_8));
        head.addAll(0, List.of("HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"));
        head.add("Sec-WebSocket-Accept: " + Base64.getEncoder().encodeToString(hash));
        if (fields.containsKey("Sec-WebSocket-Protocol")) {
            String[] offered = fields.get("Sec-WebSocket-Protocol").split(",");
            head.add("Sec-WebSocket-Protocol: " + offered[offered.length - 1].strip());
        }
        out.write((String.join("\r\n", head) + "\r\n\r\n").getBytes(StandardCharsets.UTF_8));
        boolean isNamed = target.startsWith("/websocket_client");
        ByteArrayOutputStream message = new ByteArrayOutputStream();
        for (int kind = 0;;) {
            int first = in.readUnsignedByte(), second = in.readUnsignedByte();
            long size = second & 0x7f;
            size = size == 126 ? in.readUnsignedShort() : size == 127 ? in.readLong() : size;
            byte[] mask = new byte[4], payload = new byte[(int) size];
            in.readFully(mask);
            in.readFully(payload);
            for (int at = 0; at < payload.length; at++) {
                payload[at] ^= mask[at & 3];
            }
            int opcode = first & 15;
            if (opcode == 8) {
                send(out, 8, size < 2 ? new byte[0] : new byte[] {payload[0], payload[1]});
                return;
            } else if (opcode == 9) {
                send(out, 10, payload);
                continue;
            } else if (opcode == 10) {
                continue;
            }
            kind = opcode == 0 ? kind : opcode;
            message.write(payload);
            if ((first & 0x80) != 0) {
                byte[] prefix = (isNamed ? name + ": " : "").getBytes(StandardCharsets.UTF_8);
                byte[] whole = ByteBuffer.allocate(prefix.length + message.size()).put(prefix).put(message.toByteArray()).array();
                send(out, kind, whole);
                isNamed = false;
                message.reset();
            }
        }
    }

    public static void main(String[] words) throws Exception {
        name = words[0];
        InetAddress host = InetAddress.getByName(words[1]);
        HttpServer server = HttpServer.create(new InetSocketAddress(host, Integer.parseInt(words[2])), 1024);
        server.createContext("/", exchange -> {
            try {
                serve(exchange);
            } catch (Exception error) {
                throw new IOException(error);
            } finally {
                exchange.close();
            }
        });
        server.setExecutor(Executors.newCachedThreadPool());
        server.start();
        ServerSocket sockets = new ServerSocket(Integer.parseInt(words[3]), 1024, host);
        System.out.println("websocket on " + words[1] + ":" + sockets.getLocalPort());
        System.out.println("listening on " + words[1] + ":" + server.getAddress().getPort());
        while (true) {
            Socket socket = sockets.accept();
            socket.setTcpNoDelay(true);
            new Thread(() -> {
                try (socket) {
                    converse(socket);
                } catch (Exception error) {
                    // The client has left.
                }
            }).start();
        }
    }
}
