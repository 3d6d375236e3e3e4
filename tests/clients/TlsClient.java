import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.net.http.WebSocket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.KeyStore;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Base64;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.TimeUnit;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/**
 * Fetches a page over https and echoes a message over wss with Java's HttpClient. Its arguments and its lines are those
 * of tls_client.py, without the line of a resumed session.
 */
class TlsClient {
    private static final int TIMEOUT_S = 300;
    private static final char[] NO_PASSWORD = {};

    interface Act {
        Object run(HttpClient client, String port) throws Exception;
    }

    public static void main(String[] arguments) throws Exception {
        var folder = Path.of(arguments[0]);
        for (int at = 1; at < arguments.length; at++) {
            var parts = arguments[at].split(":");
            var context = newContext(folder, parts.length > 1 ? parts[1] : null);
            tell(arguments[at] + " page: ", TlsClient::fetch, context, parts[0]);
            tell(arguments[at] + " echo: ", TlsClient::echo, context, parts[0]);
        }
        // The clients' threads are no daemons everywhere.
        System.exit(0);
    }

    private static void tell(String name, Act act, SSLContext context, String port) {
        Object result;
        try {
            result = act.run(HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).sslContext(context).build(), port);
        } catch (Exception error) {
            // The cause is what TLS says.
            Throwable cause = error;
            while (cause.getCause() != null) {
                cause = cause.getCause();
            }
            result = error + ": " + cause;
        }
        System.out.println(name + result.toString().replace('\n', ' '));
    }

    private static Object fetch(HttpClient client, String port) throws Exception {
        var request = HttpRequest.newBuilder(URI.create("https://127.0.0.1:" + port + "/")).build();
        return client.send(request, BodyHandlers.ofString()).statusCode();
    }

    private static Object echo(HttpClient client, String port) throws Exception {
        var message = new CompletableFuture<String>();
        var listener = new WebSocket.Listener() {
            private String text = "";

            @Override
            public CompletionStage<?> onText(WebSocket socket, CharSequence part, boolean isLast) {
                text += part;
                if (isLast) {
                    message.complete(text);
                }
                socket.request(1);
                return null;
            }

            @Override
            public CompletionStage<?> onClose(WebSocket socket, int code, String reason) {
                message.completeExceptionally(new IOException("closed with " + code + " " + reason));
                return null;
            }

            @Override
            public void onError(WebSocket socket, Throwable error) {
                message.completeExceptionally(error);
            }
        };
        var connecting = client.newWebSocketBuilder().buildAsync(URI.create("wss://127.0.0.1:" + port + "/echo"), listener);
        var socket = connecting.get(TIMEOUT_S, TimeUnit.SECONDS);
        socket.sendText("hello", true);
        var echoed = message.get(TIMEOUT_S, TimeUnit.SECONDS);
        socket.sendClose(WebSocket.NORMAL_CLOSURE, "").get(TIMEOUT_S, TimeUnit.SECONDS);
        return echoed;
    }

    /** Trusts root.crt, and presents this certificate if it is not null. */
    private static SSLContext newContext(Path folder, String certificate) throws IOException, GeneralSecurityException {
        var trusted = newStore();
        trusted.setCertificateEntry("root", readCertificate(folder.resolve("root.crt")));
        var trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(trusted);
        var own = newStore();
        if (certificate != null) {
            var chain = new Certificate[] {readCertificate(folder.resolve(certificate + ".crt"))};
            var pem = Files.readString(folder.resolve(certificate + ".key")).replaceAll("-----.*-----", "");
            var key = new PKCS8EncodedKeySpec(Base64.getMimeDecoder().decode(pem));
            own.setKeyEntry("own", KeyFactory.getInstance("EC").generatePrivate(key), NO_PASSWORD, chain);
        }
        var keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        keys.init(own, NO_PASSWORD);
        var context = SSLContext.getInstance("TLS");
        context.init(keys.getKeyManagers(), trust.getTrustManagers(), null);
        return context;
    }

    private static KeyStore newStore() throws IOException, GeneralSecurityException {
        var store = KeyStore.getInstance("PKCS12");
        store.load(null, null);
        return store;
    }

    private static Certificate readCertificate(Path path) throws IOException, GeneralSecurityException {
        try (var file = Files.newInputStream(path)) {
            return CertificateFactory.getInstance("X.509").generateCertificate(file);
        }
    }
}
