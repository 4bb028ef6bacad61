// A web service with eight threads. `price`: computes a price inside of a monitor or outside of it. `allocate`: keeps so many megabytes
// of sessions, one of which each request replaces.
// usage: java Service.java PORT price inside|outside | allocate MEGABYTES
import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.util.concurrent.Executors;
import java.util.concurrent.ThreadLocalRandom;

public class Service {
    static final Object prices = new Object();
    static long sink;

    static long computePrice() {
        long state = System.nanoTime();
        for (int i = 0; i < 4_000_000; i++) {
            state = state * 0x5851f42d4c957f2dL + 1;
        }
        return state;
    }

    static void price(boolean inside) {
        if (inside) {
            synchronized (prices) {
                sink = computePrice();
            }
        } else {
            long price = computePrice();
            synchronized (prices) {
                sink = price;
            }
        }
    }

    // Small objects, as those of most programs.
    static byte[][] session() {
        byte[][] parts = new byte[512][];
        for (int i = 0; i < parts.length; i++) {
            parts[i] = new byte[100];
        }
        return parts;
    }

    static void allocate(byte[][][] sessions) {
        for (int i = 0; i < 20; i++) {
            sessions[ThreadLocalRandom.current().nextInt(sessions.length)] = session();
        }
    }

    public static void main(String[] arguments) throws Exception {
        boolean prices = arguments[1].equals("price");
        boolean inside = arguments[2].equals("inside");
        int sessions = prices ? 0 : Integer.parseInt(arguments[2]) * (1 << 20) / (512 * 124);
        byte[][][] kept = new byte[sessions][][];
        for (int i = 0; i < kept.length; i++) {
            kept[i] = session();
        }
        InetSocketAddress address = new InetSocketAddress("127.0.0.1", Integer.parseInt(arguments[0]));
        HttpServer server = HttpServer.create(address, 128);
        byte[] answer = "done".getBytes();
        server.createContext("/", exchange -> {
            if (prices) {
                price(inside);
            } else {
                allocate(kept);
            }
            exchange.sendResponseHeaders(200, answer.length);
            exchange.getResponseBody().write(answer);
            exchange.close();
        });
        server.setExecutor(Executors.newFixedThreadPool(8));
        server.start();
        System.out.println("begun");
    }
}
