import java.math.BigDecimal;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.Date;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Timestamp;
import java.sql.Types;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.util.ArrayList;
import java.util.Calendar;
import java.util.List;
import java.util.Properties;
import java.util.TimeZone;

/** The Arrow Flight SQL JDBC driver. Arguments: a node's Flight address, one that wants tokens, a token that may write. */
public class Jdbc {
  static final Calendar UTC = Calendar.getInstance(TimeZone.getTimeZone("UTC"));
  static String url;

  static Connection open() throws SQLException {
    return DriverManager.getConnection(url);
  }

  /** All rows of a result as text. */
  static List<String> rows(ResultSet result) throws SQLException {
    List<String> rows = new ArrayList<>();
    int columns = result.getMetaData().getColumnCount();
    while (result.next()) {
      List<String> row = new ArrayList<>();
      for (int i = 1; i <= columns; i++) row.add(String.valueOf(result.getObject(i)));
      rows.add(String.join(",", row));
    }
    result.close();
    return rows;
  }

  static List<String> ask(Connection connection, String sql) throws SQLException {
    try (Statement statement = connection.createStatement()) {
      return rows(statement.executeQuery(sql));
    }
  }

  static int change(Connection connection, String sql) throws SQLException {
    try (Statement statement = connection.createStatement()) {
      return statement.executeUpdate(sql);
    }
  }

  static List<String> column(ResultSet result, String name) throws SQLException {
    List<String> values = new ArrayList<>();
    while (result.next()) values.add(result.getString(name));
    result.close();
    return values;
  }

  public static void main(String[] arguments) throws Exception {
    url = "jdbc:arrow-flight-sql://" + arguments[0] + "?useEncryption=false";
    Cases cases = new Cases();
    cases.of("connect", Jdbc::connect);
    cases.of("ddl", Jdbc::ddl);
    cases.of("types", Jdbc::types);
    cases.of("parameters", Jdbc::parameters);
    cases.of("batches", Jdbc::batches);
    cases.of("changes", Jdbc::changes);
    cases.of("metadata", Jdbc::metadata);
    cases.of("every_getter", Jdbc::everyGetter);
    cases.of("transactions", Jdbc::transactions);
    cases.of("auto_commit", Jdbc::autoCommit);
    cases.of("errors", Jdbc::errors);
    cases.of("large_results", Jdbc::largeResults);
    cases.of("cancel", Jdbc::cancel);
    cases.of("time_travel", Jdbc::timeTravel);
    cases.of("tokens", () -> tokens(arguments[1], arguments[2]));
    cases.end();
  }

  static void connect() throws Exception {
    try (Connection connection = open()) {
      Cases.check(connection.isValid(5), "valid");
      Cases.equal("TandemDB", connection.getMetaData().getDatabaseProductName());
      Cases.equal(List.of("1"), ask(connection, "SELECT 1"));
    }
  }

  /** Each statement once: a second run of any of them fails. */
  static void ddl() throws Exception {
    try (Connection connection = open()) {
      Cases.equal(0, change(connection, "CREATE TABLE jdbc_ddl (n BIGINT)"));
      Cases.equal(0, change(connection, "ALTER TABLE jdbc_ddl ADD COLUMN t VARCHAR"));
      Cases.equal(1, change(connection, "INSERT INTO jdbc_ddl VALUES (1, 'a')"));
      Cases.equal(0, change(connection, "ALTER TABLE jdbc_ddl RENAME COLUMN t TO text"));
      Cases.equal(0, change(connection, "ALTER TABLE jdbc_ddl RENAME TO jdbc_ddl2"));
      Cases.equal(List.of("1,a"), ask(connection, "SELECT n, text FROM jdbc_ddl2"));
      try (Statement statement = connection.createStatement()) {
        Cases.check(!statement.execute("DROP TABLE jdbc_ddl2"), "no result");
        Cases.check(statement.execute("SELECT count(*) FROM system.tables WHERE table_name LIKE 'jdbc_ddl%'"), "a result");
        Cases.equal(List.of("0"), rows(statement.getResultSet()));
      }
    }
  }

  static void types() throws Exception {
    try (Connection connection = open()) {
      change(connection, "CREATE TABLE jdbc_types (ts TIMESTAMP(9), host SYMBOL, n BIGINT, i INT, s SMALLINT, f DOUBLE, r REAL, "
          + "b BOOLEAN, d DATE, price DECIMAL(10,2), bytes BYTEA, ms TIMESTAMP(3), t TIME, u BIGINT UNSIGNED)");
      Cases.equal(2, change(connection, "INSERT INTO jdbc_types VALUES (TIMESTAMP '2024-01-01 00:00:00.123456789', 'h', 9007199254740993, "
          + "-2, 3, 0.1, 2.5, true, DATE '2024-02-29', 12.34, X'0102', TIMESTAMP '2024-01-01 00:00:00.123', TIME '10:11:12', 5), "
          + "(TIMESTAMP '2024-01-01 00:00:01', null, null, null, null, null, null, null, null, null, null, null, null, null)"));
      try (Statement statement = connection.createStatement();
          ResultSet result = statement.executeQuery("SELECT * FROM jdbc_types ORDER BY ts")) {
        ResultSetMetaData columns = result.getMetaData();
        int[] wanted = {
          Types.TIMESTAMP, Types.VARCHAR, Types.BIGINT, Types.INTEGER, Types.SMALLINT, Types.DOUBLE, Types.FLOAT, Types.BOOLEAN,
          Types.DATE, Types.DECIMAL, Types.VARBINARY, Types.TIMESTAMP, Types.TIME,
        };
        for (int i = 0; i < wanted.length; i++) Cases.equal(wanted[i], columns.getColumnType(i + 1));
        Cases.equal("price", columns.getColumnLabel(10));
        Cases.equal(ResultSetMetaData.columnNoNulls, columns.isNullable(1));
        Cases.check(result.next(), "a row");
        Cases.equal("2024-01-01 00:00:00.123456789", result.getTimestamp("ts").toString());
        Cases.equal("h", result.getString("host"));
        Cases.equal(9007199254740993L, result.getLong("n"));
        Cases.equal(-2, result.getInt("i"));
        Cases.equal((short) 3, result.getShort("s"));
        Cases.equal(0.1, result.getDouble("f"));
        Cases.equal(2.5f, result.getFloat("r"));
        Cases.equal(true, result.getBoolean("b"));
        Cases.equal(Date.valueOf("2024-02-29"), result.getDate("d"));
        Cases.equal(new BigDecimal("12.34"), result.getBigDecimal("price"));
        Cases.equal(2, result.getBytes("bytes").length);
        Cases.equal("2024-01-01 00:00:00.123", result.getTimestamp("ms").toString());
        Cases.equal("10:11:12", result.getTime("t").toString());
        Cases.equal(5L, result.getLong("u"));
        Cases.check(result.next(), "a second row");
        for (int i = 2; i <= columns.getColumnCount(); i++) Cases.equal(null, result.getObject(i));
        Cases.equal(0L, result.getLong("n"));
        Cases.check(result.wasNull(), "null");
        Cases.check(!result.next(), "two rows");
      }
    }
  }

  static void parameters() throws Exception {
    try (Connection connection = open()) {
      change(connection, "CREATE TABLE jdbc_parameters (ts TIMESTAMP(9), host VARCHAR, n BIGINT, f DOUBLE, b BOOLEAN, d DATE, "
          + "price DECIMAL(10,2), bytes BYTEA, us TIMESTAMP(6))");
      Timestamp at = Timestamp.valueOf("2024-01-01 00:00:02.123");
      try (PreparedStatement insert = connection.prepareStatement("INSERT INTO jdbc_parameters VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)")) {
        Cases.equal(9, insert.getParameterMetaData().getParameterCount());
        insert.setTimestamp(1, at);
        insert.setString(2, "it's");
        insert.setLong(3, 7);
        insert.setDouble(4, 0.5);
        insert.setBoolean(5, true);
        insert.setDate(6, Date.valueOf("2024-03-01"));
        insert.setBigDecimal(7, new BigDecimal("99.99"));
        insert.setBytes(8, new byte[] {1, 2, 3});
        insert.setTimestamp(9, at);
        Cases.equal(1, insert.executeUpdate());
        insert.setTimestamp(1, Timestamp.valueOf("2024-01-01 00:00:03"));
        insert.setString(2, "null");
        insert.setNull(3, Types.BIGINT);
        insert.setNull(9, Types.TIMESTAMP);
        Cases.equal(1, insert.executeUpdate());
      }
      Cases.equal(List.of("it's,7,0.5,true,2024-03-01,99.99"), ask(connection, "SELECT host, n, f, b, d, price FROM jdbc_parameters WHERE n = 7"));
      // What a driver that binds milliseconds writes as nanoseconds lies in 1970.
      Cases.equal(List.of("2024-01-01 00:00:02.123,2024-01-01 00:00:02.123", "2024-01-01 00:00:03.0,null"),
          ask(connection, "SELECT ts, us FROM jdbc_parameters ORDER BY ts"));
      String[] conditions = {"ts = ?", "us = ?", "ts <= ? AND n IS NOT NULL"};
      for (String condition : conditions) {
        try (PreparedStatement query = connection.prepareStatement("SELECT host FROM jdbc_parameters WHERE " + condition)) {
          query.setTimestamp(1, at);
          Cases.equal(List.of("it's"), rows(query.executeQuery()));
        }
      }
      try (PreparedStatement query = connection.prepareStatement("SELECT host FROM jdbc_parameters WHERE n = ? OR d = ? AND host = ?")) {
        for (long n : new long[] {7, 8}) {
          query.setLong(1, n);
          query.setDate(2, Date.valueOf("2024-03-01"));
          query.setString(3, "null");
          Cases.equal(n == 7 ? 2 : 1, rows(query.executeQuery()).size());
        }
      }
    }
  }

  static void batches() throws Exception {
    try (Connection connection = open()) {
      change(connection, "CREATE TABLE jdbc_batches (n BIGINT, t VARCHAR)");
      try (PreparedStatement insert = connection.prepareStatement("INSERT INTO jdbc_batches VALUES (?, ?)")) {
        for (int round = 0; round < 3; round++) {
          for (int i = 0; i < 1000; i++) {
            insert.setLong(1, round * 1000L + i);
            if (i % 10 == 0) insert.setNull(2, Types.VARCHAR);
            else insert.setString(2, "t" + i);
            insert.addBatch();
          }
          // One count for the whole batch, which is one transaction.
          int[] counts = insert.executeBatch();
          Cases.equal(1, counts.length);
          Cases.equal(1000, counts[0]);
        }
      }
      Cases.equal(List.of("3000,3000,2700,4498500"), ask(connection, "SELECT count(*), count(DISTINCT n), count(t), sum(n) FROM jdbc_batches"));
      Cases.equal(List.of("3"), ask(connection, "SELECT count(DISTINCT _seq) FROM system.changes('jdbc_batches', 1) WHERE n IS NOT NULL"));
    }
  }

  static void changes() throws Exception {
    try (Connection connection = open()) {
      change(connection, "CREATE TABLE jdbc_changes (n BIGINT, t VARCHAR)");
      Cases.equal(3, change(connection, "INSERT INTO jdbc_changes VALUES (1, 'a'), (2, 'b'), (3, 'c')"));
      Cases.equal(2, change(connection, "UPDATE jdbc_changes SET t = 'x' WHERE n >= 2"));
      Cases.equal(1, change(connection, "DELETE FROM jdbc_changes WHERE n = 3"));
      Cases.equal(List.of("1,a", "2,x"), ask(connection, "SELECT * FROM jdbc_changes ORDER BY n"));
      Cases.equal(0, change(connection, "TRUNCATE TABLE jdbc_changes"));
      Cases.equal(List.of(), ask(connection, "SELECT * FROM jdbc_changes"));
    }
  }

  static void metadata() throws Exception {
    try (Connection connection = open()) {
      change(connection, "CREATE TABLE jdbc_metadata (ts TIMESTAMP, host VARCHAR, v DOUBLE, PRIMARY KEY (ts, host))");
      DatabaseMetaData about = connection.getMetaData();
      Cases.equal(List.of("jdbc_metadata"), column(about.getTables(null, "public", "jdbc\\_meta%", new String[] {"TABLE"}), "TABLE_NAME"));
      Cases.equal(List.of(), column(about.getTables(null, "system", "jdbc%", null), "TABLE_NAME"));
      Cases.equal(List.of("ts", "host", "v"), column(about.getColumns(null, "public", "jdbc_metadata", "%"), "COLUMN_NAME"));
      Cases.equal(List.of("93", "12", "8"), column(about.getColumns(null, null, "jdbc_metadata", null), "DATA_TYPE"));
      Cases.equal(List.of("NO", "NO", "YES"), column(about.getColumns(null, null, "jdbc_metadata", null), "IS_NULLABLE"));
      Cases.equal(List.of("ts", "host"), column(about.getPrimaryKeys(null, "public", "jdbc_metadata"), "COLUMN_NAME"));
      Cases.equal(List.of("information_schema", "public", "system"), column(about.getSchemas(), "TABLE_SCHEM"));
      Cases.equal(1, column(about.getCatalogs(), "TABLE_CAT").size());
      Cases.equal(List.of("SYSTEM TABLE", "TABLE", "VIEW"), column(about.getTableTypes(), "TABLE_TYPE"));
      Cases.equal(List.of(), column(about.getImportedKeys(null, null, "jdbc_metadata"), "PKTABLE_NAME"));
      // The driver never asks a server for these.
      Cases.equal(List.of(), column(about.getTypeInfo(), "TYPE_NAME"));
    }
  }

  /** Tools ask for all of it when they connect, and some give up at the first failure. */
  static void everyGetter() throws Exception {
    Connection connection = open();
    try {
      DatabaseMetaData about = connection.getMetaData();
      List<String> failed = new ArrayList<>();
      int asked = 0;
      for (Method getter : DatabaseMetaData.class.getMethods()) {
        if (getter.getParameterCount() != 0) continue;
        asked++;
        try {
          getter.invoke(about);
        } catch (InvocationTargetException error) {
          failed.add(getter.getName() + ": " + error.getCause());
        }
      }
      Cases.check(asked > 100, "getters were found");
      Cases.equal(List.of(), failed);
      Cases.check(about.supportsTransactionIsolationLevel(Connection.TRANSACTION_SERIALIZABLE), "serializable");
    } finally {
      try {
        connection.close();
      } catch (SQLException forgotten) {
        // The driver counts a buffer that one of its getters left behind.
        Cases.check(String.valueOf(forgotten).contains("leaked"), String.valueOf(forgotten));
      }
    }
  }

  /** By SQL: the driver's own commit() and rollback() do nothing. */
  static void transactions() throws Exception {
    try (Connection connection = open(); Connection other = open()) {
      change(connection, "CREATE TABLE jdbc_transactions (n BIGINT)");
      change(connection, "BEGIN");
      Cases.equal(1, change(connection, "INSERT INTO jdbc_transactions VALUES (1)"));
      try (PreparedStatement insert = connection.prepareStatement("INSERT INTO jdbc_transactions VALUES (?)")) {
        insert.setLong(1, 2);
        Cases.equal(1, insert.executeUpdate());
      }
      Cases.equal(List.of("2"), ask(connection, "SELECT count(*) FROM jdbc_transactions"));
      Cases.equal(List.of("0"), ask(other, "SELECT count(*) FROM jdbc_transactions"));
      change(connection, "ROLLBACK");
      Cases.equal(List.of("0"), ask(connection, "SELECT count(*) FROM jdbc_transactions"));
      change(connection, "BEGIN");
      change(connection, "INSERT INTO jdbc_transactions VALUES (3)");
      change(connection, "COMMIT");
      Cases.equal(List.of("1"), ask(other, "SELECT count(*) FROM jdbc_transactions"));
    }
  }

  /** What the driver makes of it: told here because it surprises. A version that does better fails this case. */
  static void autoCommit() throws Exception {
    try (Connection connection = open(); Connection other = open()) {
      change(connection, "CREATE TABLE jdbc_auto (n BIGINT)");
      connection.setAutoCommit(false);
      change(connection, "INSERT INTO jdbc_auto VALUES (1)");
      connection.rollback();
      Cases.equal(List.of("1"), ask(other, "SELECT count(*) FROM jdbc_auto"));
      change(connection, "INSERT INTO jdbc_auto VALUES (2)");
      connection.commit();
      Cases.equal(List.of("2"), ask(other, "SELECT count(*) FROM jdbc_auto"));
    }
  }

  static void errors() throws Exception {
    try (Connection connection = open()) {
      change(connection, "CREATE TABLE jdbc_errors (ts TIMESTAMP, n BIGINT)");
      String[][] wrong = {
        {"SELEC 1", "INVALID_ARGUMENT", "line 1, column 1"},
        {"SELECT * FROM jdbc_absent", "NOT_FOUND", "jdbc_absent"},
        {"SELECT absent FROM jdbc_errors", "NOT_FOUND", "no field named absent"},
        {"CREATE TABLE jdbc_errors (n BIGINT)", "ALREADY_EXISTS", "jdbc_errors exists"},
        {"INSERT INTO jdbc_errors VALUES (NULL, 1)", "INVALID_ARGUMENT", "\"ts\""},
      };
      for (String[] each : wrong) {
        SQLException error = (SQLException) Cases.thrown(each[2], () -> {
          try (Statement statement = connection.createStatement()) {
            statement.execute(each[0]);
          }
        });
        // The driver has no SQLSTATE; the server's word is in the cause.
        Cases.equal(null, error.getSQLState());
        Cases.check(String.valueOf(error.getCause()).contains(each[1]), each[1] + " in " + error.getCause());
      }
      Cases.equal(List.of("0"), ask(connection, "SELECT count(*) FROM jdbc_errors"));
    }
    // It connects when there is something to ask.
    refused("jdbc:arrow-flight-sql://127.0.0.1:1?useEncryption=false", new Properties());
  }

  static void largeResults() throws Exception {
    try (Connection connection = open(); Statement statement = connection.createStatement()) {
      long sum = 0;
      try (ResultSet result = statement.executeQuery("SELECT value FROM generate_series(1, 300000)")) {
        while (result.next()) sum += result.getLong(1);
      }
      Cases.equal(300000L * 300001 / 2, sum);
      statement.setMaxRows(5);
      Cases.equal(5, rows(statement.executeQuery("SELECT value FROM generate_series(1, 300000)")).size());
    }
  }

  static void cancel() throws Exception {
    try (Connection connection = open(); Statement statement = connection.createStatement()) {
      Thread other = new Thread(() -> {
        try {
          Thread.sleep(500);
          statement.cancel();
        } catch (Exception error) {
          throw new IllegalStateException(error);
        }
      });
      other.start();
      // What the driver throws of a reader that was taken away varies.
      Cases.thrown("", () -> rows(statement.executeQuery("SELECT value FROM generate_series(1, 100000000000)")));
      other.join();
    }
    try (Connection connection = open()) {
      String running = "SELECT count(*) FROM system.queries WHERE state = 'running' AND statement LIKE '%100000000000%' AND statement NOT LIKE '%queries%'";
      for (int i = 0; i < 100 && !ask(connection, running).equals(List.of("0")); i++) Thread.sleep(100);
      Cases.equal(List.of("0"), ask(connection, running));
    }
  }

  static void timeTravel() throws Exception {
    try (Connection connection = open()) {
      change(connection, "CREATE TABLE jdbc_past (n BIGINT)");
      change(connection, "INSERT INTO jdbc_past VALUES (1)");
      String seq = ask(connection, "SELECT tandem_last_seq()").get(0);
      change(connection, "INSERT INTO jdbc_past VALUES (2)");
      Cases.equal(List.of("1"), ask(connection, "SELECT count(*) FROM jdbc_past VERSION AS OF " + seq));
      change(connection, "SET tandem.as_of = 'seq:" + seq + "'");
      Cases.equal(List.of("1"), ask(connection, "SELECT count(*) FROM jdbc_past"));
    }
  }

  static void tokens(String guarded, String token) throws Exception {
    String base = "jdbc:arrow-flight-sql://" + guarded + "?useEncryption=false";
    refused(base, new Properties());
    Properties secret = new Properties();
    secret.put("user", "anybody");
    secret.put("password", token);
    try (Connection connection = DriverManager.getConnection(base, secret)) {
      change(connection, "CREATE TABLE jdbc_tokens (n BIGINT)");
      Cases.equal(List.of("0"), ask(connection, "SELECT count(*) FROM jdbc_tokens"));
    }
    try (Connection connection = DriverManager.getConnection(base + "&token=" + token)) {
      Cases.equal(List.of("0"), ask(connection, "SELECT count(*) FROM jdbc_tokens"));
    }
    secret.put("password", "wrong-0123456789abcdef");
    refused(base, secret);
  }

  /** No statement gets through. */
  static void refused(String url, Properties properties) throws Exception {
    Cases.thrown("", () -> {
      try (Connection connection = DriverManager.getConnection(url, properties)) {
        ask(connection, "SELECT 1");
      }
    });
  }
}
