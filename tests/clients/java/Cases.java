import java.util.Objects;

/** Runs cases by name and prints a line for each, which the tests read: "ok NAME" or "failed NAME: why". */
final class Cases {
  interface Case {
    void run() throws Exception;
  }

  private int failed = 0;

  void of(String name, Case body) {
    try {
      body.run();
      System.out.println("ok " + name);
    } catch (Throwable thrown) {
      failed++;
      StringBuilder why = new StringBuilder(String.valueOf(thrown));
      for (StackTraceElement at : thrown.getStackTrace()) {
        if (why.length() < 900) why.append(" | ").append(at);
      }
      System.out.println("failed " + name + ": " + why.toString().replace('\n', ' '));
    }
  }

  void end() {
    // Drivers leave threads behind.
    System.exit(failed == 0 ? 0 : 1);
  }

  static void equal(Object wanted, Object got) {
    if (!Objects.equals(wanted, got)) throw new AssertionError("wanted " + wanted + ", got " + got);
  }

  static void check(boolean holds, String what) {
    if (!holds) throw new AssertionError(what);
  }

  /** What `body` throws, which has to contain `part`. */
  static Throwable thrown(String part, Case body) throws Exception {
    try {
      body.run();
    } catch (Exception error) {
      check(String.valueOf(error).contains(part), "wanted an error with \"" + part + "\", got " + error);
      return error;
    }
    throw new AssertionError("wanted an error with \"" + part + "\", got none");
  }
}
