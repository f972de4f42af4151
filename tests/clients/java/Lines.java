import com.influxdb.client.InfluxDBClientFactory;
import com.influxdb.client.domain.WritePrecision;
import com.influxdb.v3.client.InfluxDBApiHttpException;
import com.influxdb.v3.client.InfluxDBClient;
import com.influxdb.v3.client.config.ClientConfig;
import io.questdb.client.Sender;
import io.questdb.client.cutlass.line.LineSenderException;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.ArrayList;
import java.util.List;

/**
 * Clients of line protocol. Arguments: a node's HTTP address, one that wants tokens, a token that may write; or, to write
 * rows through one sender while its node is killed: "stream", the sender's configuration, how many rows.
 */
public class Lines {
  static final Instant START = Instant.parse("2024-01-01T00:00:00.000000001Z");
  static String address;

  public static void main(String[] arguments) throws Exception {
    if (arguments[0].equals("stream")) {
      stream(arguments[1], Integer.parseInt(arguments[2]));
      return;
    }
    address = arguments[0];
    Cases cases = new Cases();
    cases.of("questdb_versions", Lines::questdbVersions);
    cases.of("questdb_errors", Lines::questdbErrors);
    cases.of("questdb_tokens", () -> questdbTokens(arguments[1], arguments[2]));
    cases.of("influxdb2", Lines::influxdb2);
    cases.of("influxdb2_tokens", () -> influxdb2Tokens(arguments[1], arguments[2]));
    cases.of("influxdb3", Lines::influxdb3);
    cases.of("influxdb3_tokens", () -> influxdb3Tokens(arguments[1], arguments[2]));
    cases.end();
  }

  static void questdbVersions() {
    for (String version : new String[] {"auto", "1", "2", "3"}) {
      String configuration = "http::addr=" + address + ";protocol_version=" + version + ";auto_flush=off;";
      try (Sender sender = Sender.fromConfig(configuration)) {
        for (int i = 0; i < 100; i++) {
          sender.table("java_questdb_" + version).symbol("city", "Oslo, = " + i % 3).longColumn("n", i).doubleColumn("f", i + 0.1)
              .stringColumn("s", "line\nbreak \"" + i).boolColumn("b", i % 2 == 0)
              .timestampColumn("seen", START.plus(i, ChronoUnit.MICROS));
          if (!version.equals("1")) sender.doubleArray("a", new double[][] {{i, 0.5}, {1.5, 2.5}});
          if (version.equals("auto") || version.equals("3")) sender.decimalColumn("d", "12.345");
          sender.at(START.plus(i, ChronoUnit.NANOS));
        }
        sender.flush();
      }
    }
  }

  static void questdbErrors() throws Exception {
    try (Sender sender = Sender.fromConfig("http::addr=" + address + ";auto_flush=off;")) {
      sender.table("java_clash").longColumn("n", 1).at(START);
      sender.flush();
      sender.table("java_clash").stringColumn("n", "text").at(START);
      Throwable error = Cases.thrown("the column is Int64, the line has a string", sender::flush);
      Cases.check(error instanceof LineSenderException && error.getMessage().contains("line: 1"), error.getMessage());
      sender.reset();
    }
  }

  static void questdbTokens(String guarded, String token) throws Exception {
    for (String secret : new String[] {"token=" + token, "username=me;password=" + token}) {
      try (Sender sender = Sender.fromConfig("http::addr=" + guarded + ";" + secret + ";")) {
        sender.table("java_questdb_tokens").longColumn("n", 1).at(START);
      }
    }
    Sender sender = Sender.fromConfig("http::addr=" + guarded + ";auto_flush=off;");
    sender.table("java_questdb_tokens").longColumn("n", 1).at(START);
    Cases.thrown("401", sender::flush);
    sender.reset();
    sender.close();
  }

  static void influxdb2() throws Exception {
    try (var client = InfluxDBClientFactory.create("http://" + address, "any".toCharArray(), "o", "b")) {
      Cases.check(client.ping(), "ping");
      client.enableGzip();
      List<com.influxdb.client.write.Point> points = new ArrayList<>();
      for (int i = 0; i < 1000; i++) {
        points.add(com.influxdb.client.write.Point.measurement("java_influxdb2").addTag("city", "c " + i % 3).addField("n", (long) i)
            .addField("f", i + 0.5).addField("s", "a \"b\"").time(START.plus(i, ChronoUnit.NANOS), WritePrecision.NS));
      }
      client.getWriteApiBlocking().writePoints(points);
      try (var batching = client.makeWriteApi()) {
        batching.writeRecord(WritePrecision.MS, "java_influxdb2,city=c\\ 0 n=1000i 1704067200001");
      }
      var error = Cases.thrown("", () -> client.getWriteApiBlocking().writeRecord(WritePrecision.NS, "java_influxdb2 n=\"text\" 1"));
      Cases.check(error instanceof com.influxdb.exceptions.BadRequestException, "a bad request: " + error);
      Cases.check(error.getMessage().contains("column \"n\""), error.getMessage());
    }
  }

  static void influxdb2Tokens(String guarded, String token) throws Exception {
    try (var client = InfluxDBClientFactory.create("http://" + guarded, token.toCharArray(), "o", "b")) {
      client.getWriteApiBlocking().writeRecord(WritePrecision.NS, "java_influxdb2_tokens n=1i 1");
    }
    try (var client = InfluxDBClientFactory.create("http://" + guarded, "wrong".toCharArray(), "o", "b")) {
      var error = Cases.thrown("", () -> client.getWriteApiBlocking().writeRecord(WritePrecision.NS, "java_influxdb2_tokens n=1i 1"));
      Cases.check(error instanceof com.influxdb.exceptions.UnauthorizedException, "unauthorized: " + error);
    }
  }

  static void influxdb3() throws Exception {
    try (var client = InfluxDBClient.getInstance("http://" + address, "any".toCharArray(), "d")) {
      Cases.check(!client.getServerVersion().isEmpty(), "a version");
      List<com.influxdb.v3.client.Point> points = new ArrayList<>();
      for (int i = 0; i < 1000; i++) {
        points.add(com.influxdb.v3.client.Point.measurement("java_influxdb3").setTag("room", "r" + i % 7).setField("n", (long) i)
            .setField("f", i + 0.5).setTimestamp(START.plus(i, ChronoUnit.NANOS)));
      }
      client.writePoints(points);
      var error = (InfluxDBApiHttpException) Cases.thrown("column \"n\"", () -> client.writeRecord("java_influxdb3 n=\"text\" 1"));
      Cases.equal(400, error.statusCode());
    }
    // Its second way: the route of InfluxDB 3 itself, told by an option of it.
    ClientConfig told = new ClientConfig.Builder().host("http://" + address).token("any".toCharArray()).database("d").writeNoSync(true).build();
    try (var client = InfluxDBClient.getInstance(told)) {
      client.writeRecord("java_influxdb3,room=r0 n=1000i,f=0.5 1704067300000000000");
    }
  }

  static void influxdb3Tokens(String guarded, String token) throws Exception {
    try (var client = InfluxDBClient.getInstance("http://" + guarded, token.toCharArray(), "d")) {
      client.writeRecord("java_influxdb3_tokens n=1i 1");
    }
    try (var client = InfluxDBClient.getInstance("http://" + guarded, "wrong".toCharArray(), "d")) {
      var error = (InfluxDBApiHttpException) Cases.thrown("", () -> client.writeRecord("java_influxdb3_tokens n=1i 1"));
      Cases.equal(401, error.statusCode());
    }
  }

  /** Says after each flush how many rows were acknowledged. */
  static void stream(String configuration, int rows) {
    try (Sender sender = Sender.fromConfig(configuration)) {
      for (int i = 0; i < rows; i++) {
        sender.table("streamed").longColumn("n", i).at(START.plus(i, ChronoUnit.MILLIS));
        if (i % 10 == 9) {
          sender.flush();
          System.out.println("acknowledged " + (i + 1));
        }
      }
    }
  }
}
