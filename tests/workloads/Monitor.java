// Four threads update an index behind a monitor; what is said to be outside is done before it is entered.
// usage: java Monitor.java inside|outside
import java.util.concurrent.atomic.AtomicLong;
import sun.misc.Signal;

public class Monitor {
    static final AtomicLong work = new AtomicLong();
    static final Object index = new Object();
    static volatile long sink;

    static void rebuildIndex() {
        long state = sink;
        for (int i = 0; i < 400_000; i++) {
            state = state * 0x5851f42d4c957f2dL + 1;
        }
        sink = state;
    }

    static void update(boolean inside) {
        if (!inside) {
            rebuildIndex();
        }
        synchronized (index) {
            if (inside) {
                rebuildIndex();
            }
        }
        work.incrementAndGet();
    }

    public static void main(String[] arguments) throws Exception {
        boolean inside = arguments[0].equals("inside");
        for (int i = 0; i < 4; i++) {
            Thread thread = new Thread(() -> {
                while (true) {
                    update(inside);
                }
            }, "updater-" + i);
            thread.setDaemon(true);
            thread.start();
        }
        // Compiled by now.
        Thread.sleep(1000);
        work.set(0);
        long begun = System.nanoTime();
        Signal.handle(new Signal("TERM"), signal -> {
            System.out.println("work " + work.get() + "\nns " + (System.nanoTime() - begun));
            Runtime.getRuntime().halt(0);
        });
        System.out.println("begun");
        Thread.currentThread().join();
    }
}
