import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;

/** An echo server with Java's NIO and a thread for each client: java Echo.java PATH */
class Echo {
    public static void main(String[] arguments) throws IOException {
        var listener = ServerSocketChannel.open(StandardProtocolFamily.UNIX);
        listener.bind(UnixDomainSocketAddress.of(arguments[0]));
        while (true) {
            var client = listener.accept();
            System.out.println("peer '" + client.getRemoteAddress() + "'");
            new Thread(() -> serve(client)).start();
        }
    }

    private static void serve(SocketChannel client) {
        var buffer = ByteBuffer.allocate(65536);
        try (client) {
            while (client.read(buffer) >= 0) {
                buffer.flip();
                while (buffer.hasRemaining()) {
                    client.write(buffer);
                }
                buffer.clear();
            }
        } catch (IOException error) {
            System.out.println(error);
        }
    }
}
