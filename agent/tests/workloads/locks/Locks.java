import java.util.concurrent.locks.LockSupport;

/**
 * Waits of one kind each, over and over, until it is killed: java Locks MODE. Says "ready". The thread called "waiter" waits; another lets
 * it wait for milliseconds.
 */
public final class Locks {
    private static final Object MONITOR = new Object();
    private static boolean said;

    private static void waitForIt(String mode) throws InterruptedException {
        switch (mode) {
            case "monitor" -> {
                synchronized (MONITOR) {
                    said = false;
                }
                Thread.sleep(1);
            }
            case "park" -> LockSupport.park();
            case "wait" -> {
                synchronized (MONITOR) {
                    while (!said) {
                        MONITOR.wait();
                    }
                    said = false;
                }
            }
            default -> throw new IllegalArgumentException(mode);
        }
    }

    private static void letItWait(String mode, Thread waiter) throws InterruptedException {
        switch (mode) {
            case "monitor" -> {
                synchronized (MONITOR) {
                    Thread.sleep(5);
                }
                Thread.sleep(1);
            }
            case "park" -> {
                Thread.sleep(5);
                LockSupport.unpark(waiter);
            }
            default -> {
                Thread.sleep(5);
                synchronized (MONITOR) {
                    said = true;
                    MONITOR.notify();
                }
            }
        }
    }

    public static void main(String[] words) throws InterruptedException {
        Thread waiter = new Thread(() -> {
            try {
                while (true) {
                    waitForIt(words[0]);
                }
            } catch (InterruptedException interrupted) {
                throw new IllegalStateException(interrupted);
            }
        }, "waiter");
        waiter.setDaemon(true);
        waiter.start();
        System.out.println("ready");
        while (true) {
            letItWait(words[0], waiter);
        }
    }
}
