import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.PrintStream;
import java.io.StringWriter;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.math.BigDecimal;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.sql.Types;
import java.time.LocalDate;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import java.time.format.DateTimeFormatter;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.List;
import org.postgresql.PGConnection;

/**
 * What programs do through JDBC. "metadata URL" prints what every method of DatabaseMetaData answers; "read URL ROWS" reads a
 * table that is being written and compares the rows of its history with those of a file (tabs between values).
 */
public final class JDBC {
    static final PrintStream out = new PrintStream(new FileOutputStream(FileDescriptor.out), false, StandardCharsets.UTF_8);

    public static void main(String[] args) throws Exception {
        switch (args[0]) {
            case "metadata" -> metadata(args[1]);
            case "read" -> read(args[1], Path.of(args[2]));
            default -> throw new IllegalArgumentException(args[0]);
        }
        out.flush();
    }

    static Connection connect(String url) throws SQLException {
        return DriverManager.getConnection(url);
    }

    static void check(boolean good, String what) {
        if (!good) {
            throw new AssertionError(what);
        }
    }

    // ---- metadata

    static void metadata(String url) throws Exception {
        try (Connection c = connect(url)) {
            DatabaseMetaData m = c.getMetaData();
            Method[] methods = DatabaseMetaData.class.getMethods();
            Arrays.sort(methods, Comparator.comparing((Method f) -> f.getName()).thenComparing(f -> Arrays.toString(f.getParameterTypes())));
            for (Method f : methods) {
                if (f.getDeclaringClass() != DatabaseMetaData.class || f.getName().equals("getConnection") || f.getName().equals("getURL")) {
                    continue; // of Wrapper, or another server's by its nature
                }
                for (Object[] a : arguments(f)) {
                    out.println("# " + f.getName() + show(a));
                    try {
                        Object answer = f.invoke(m, a);
                        if (answer instanceof ResultSet r) {
                            rows(r);
                        } else {
                            out.println(answer);
                        }
                    } catch (InvocationTargetException e) {
                        String state = e.getCause() instanceof SQLException s ? s.getSQLState() : "";
                        out.println("fails: " + e.getCause().getClass().getSimpleName() + " " + state + " " + e.getCause().getMessage());
                    }
                }
            }
        }
    }

    static String show(Object[] a) {
        List<String> parts = new ArrayList<>();
        for (Object x : a) {
            parts.add(x instanceof String[] s ? Arrays.toString(s) : String.valueOf(x));
        }
        return "(" + String.join(", ", parts) + ")";
    }

    static List<Object[]> arguments(Method f) {
        Class<?>[] types = f.getParameterTypes();
        List<Object[]> all = new ArrayList<>();
        if (types.length == 0) {
            all.add(new Object[] {});
            return all;
        }
        if (types[0] == int.class) {
            for (int v : new int[] {0, 1, 2, 3, 4, 8, 12, 93, 1003, 1004, 1005}) {
                if (types.length == 1) {
                    all.add(new Object[] {v});
                } else {
                    for (int w : new int[] {1, 4, 1007, 1008}) {
                        all.add(new Object[] {v, w});
                    }
                }
            }
            return all;
        }
        switch (f.getName()) {
            case "getColumns", "getPseudoColumns", "getColumnPrivileges" -> {
                all.add(new Object[] {null, "public", "orders", "%"});
                all.add(new Object[] {"lake", "public", "orders\\_daily", "%"});
                all.add(new Object[] {null, "lake", "versions", "%"});
                all.add(new Object[] {"lake", null, "customers", "name"});
                all.add(new Object[] {"nosuch", null, "orders", "%"});
                if (f.getName().equals("getColumns")) {
                    all.add(new Object[] {null, "%", "%", "order\\_id"});
                    all.add(new Object[] {null, "lake", "%", null});
                    all.add(new Object[] {null, "pg_catalog", "pg_class", "%"});
                }
            }
            case "getTables" -> {
                all.add(new Object[] {null, null, "%", new String[] {"TABLE", "VIEW"}});
                all.add(new Object[] {"lake", "public", null, null});
                all.add(new Object[] {null, "lake", "%", new String[] {"VIEW", "PARTITIONED TABLE", "FOREIGN TABLE"}});
                all.add(new Object[] {null, "pg_catalog", "%", new String[] {"SYSTEM TABLE", "SYSTEM VIEW"}});
                all.add(new Object[] {null, "information_schema", "%", null});
                all.add(new Object[] {null, "", "orders", null});
                all.add(new Object[] {"nosuch", null, "%", null});
            }
            case "getUDTs" -> all.add(new Object[] {null, "public", "%", null});
            case "getSchemas", "getCatalogs" -> {
                all.add(new Object[] {null, "%"});
                all.add(new Object[] {"lake", "l%"});
            }
            case "getFunctions", "getProcedures" -> {
                all.add(new Object[] {null, "pg_catalog", "pg\\_get\\_%"});
                all.add(new Object[] {null, "public", null});
            }
            case "getFunctionColumns", "getProcedureColumns" -> {
                all.add(new Object[] {null, "pg_catalog", "abs", "%"});
                all.add(new Object[] {null, "public", "%", "%"});
            }
            case "getBestRowIdentifier" -> {
                all.add(new Object[] {null, "public", "orders", DatabaseMetaData.bestRowSession, true});
                all.add(new Object[] {null, "lake", "versions", DatabaseMetaData.bestRowTemporary, false});
            }
            case "getIndexInfo" -> {
                all.add(new Object[] {null, "public", "orders", false, true});
                all.add(new Object[] {null, "public", "orders", true, false});
                all.add(new Object[] {null, null, "versions", false, false});
            }
            case "getCrossReference" -> all.add(new Object[] {null, "public", "orders", null, "public", "customers"});
            case "getAttributes" -> all.add(new Object[] {null, "public", "%", "%"});
            default -> { // (catalog, schema, table)
                if (types.length != 3) {
                    throw new AssertionError("no arguments for " + f);
                }
                all.add(new Object[] {null, "public", "orders"});
                all.add(new Object[] {"lake", "public", "orders_daily"});
                all.add(new Object[] {null, "lake", "versions"});
                all.add(new Object[] {null, null, "customers"});
            }
        }
        return all;
    }

    static void rows(ResultSet r) throws SQLException {
        ResultSetMetaData m = r.getMetaData();
        StringBuilder head = new StringBuilder();
        for (int i = 1; i <= m.getColumnCount(); i++) {
            head.append(i > 1 ? "|" : "").append(m.getColumnLabel(i)).append(' ').append(m.getColumnType(i) == Types.BIGINT ? Types.INTEGER : m.getColumnType(i));
        }
        out.println(head);
        List<String> lines = new ArrayList<>();
        while (r.next()) {
            StringBuilder line = new StringBuilder();
            for (int i = 1; i <= m.getColumnCount(); i++) {
                line.append(i > 1 ? "|" : "").append(r.getString(i));
            }
            lines.add(line.toString().replace("\n", "\\n"));
        }
        lines.sort(null);
        lines.forEach(l -> out.println("  " + l));
    }

    // ---- read

    static final String COLUMNS = "event_id, symbol, trade_id, price, event_time, is_buyer_maker, event_date";
    static final DateTimeFormatter TIME = DateTimeFormatter.ofPattern("yyyy-MM-dd'T'HH:mm:ss.SSSxxx");

    static void read(String url, Path file) throws Exception {
        List<String> want = Files.readAllLines(file);
        int n = want.size();
        String history = "SELECT " + COLUMNS + " FROM unified_events WHERE source = 'batch' AND trade_id <= ? ORDER BY trade_id";
        // Text, binary from the first time on, the simple protocol, and rows in pieces from a portal.
        for (String options : List.of("", "&prepareThreshold=-1", "&binaryTransfer=false&defaultRowFetchSize=50", "&preferQueryMode=simple", "&preferQueryMode=extendedForPrepared&defaultRowFetchSize=100")) {
            try (Connection c = connect(url + options)) {
                c.setAutoCommit(!options.contains("FetchSize"));
                try (PreparedStatement s = c.prepareStatement(history)) {
                    s.setLong(1, n);
                    for (int time = 0; time < 6; time++) { // the fifth time is that of a statement with a name
                        try (ResultSet r = s.executeQuery()) {
                            List<String> got = new ArrayList<>();
                            while (r.next()) {
                                got.add(String.join("\t", r.getString(1), r.getString(2), Long.toString(r.getLong(3)), r.getBigDecimal(4).toPlainString(),
                                    r.getObject(5, OffsetDateTime.class).withOffsetSameInstant(ZoneOffset.UTC).format(TIME), Boolean.toString(r.getBoolean(6)),
                                    r.getObject(7, LocalDate.class).toString()));
                            }
                            check(got.equals(want), options + ", time " + time + ": " + got.size() + " rows, want " + n + "; " + firstDifference(got, want));
                        }
                    }
                }
                if (!c.getAutoCommit()) {
                    c.commit();
                }
            }
        }
        long first = -1;
        long last = -1;
        try (Connection c = connect(url)) {
            c.setReadOnly(true);
            c.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
            check(c.isValid(10), "isValid");
            parameters(c, want);
            shapes(c);
            errors(c);
            for (int i = 0; i < 5; i++) { // one version in a transaction, later ones afterwards
                c.setAutoCommit(false);
                long a = count(c, "SELECT count(*) FROM unified_events");
                long b = count(c, "SELECT count(*) FROM unified_events");
                check(a == b, "two counts of one transaction: " + a + " and " + b);
                check(a >= last, "rows were seen and then no more: " + last + ", " + a);
                first = first < 0 ? a : first;
                last = a;
                c.commit();
                c.setAutoCommit(true);
            }
            StringWriter csv = new StringWriter();
            c.unwrap(PGConnection.class).getCopyAPI().copyOut("COPY (" + history.replace("?", Integer.toString(n)) + ") TO STDOUT (FORMAT csv)", csv);
            check(csv.toString().lines().count() == n, "COPY gave " + csv.toString().lines().count() + " lines");
        }
        out.println(n + " rows by " + DriverManager.getDriver(url).getClass().getPackage().getImplementationTitle() + " "
            + DriverManager.getDriver(url).getMajorVersion() + "." + DriverManager.getDriver(url).getMinorVersion() + "; " + first + " to " + last + " rows while the stream wrote");
    }

    static String firstDifference(List<String> got, List<String> want) {
        for (int i = 0; i < Math.min(got.size(), want.size()); i++) {
            if (!got.get(i).equals(want.get(i))) {
                return got.get(i) + " for " + want.get(i);
            }
        }
        return "";
    }

    static long count(Connection c, String sql, Object... values) throws SQLException {
        try (PreparedStatement s = c.prepareStatement(sql)) {
            for (int i = 0; i < values.length; i++) {
                s.setObject(i + 1, values[i]);
            }
            try (ResultSet r = s.executeQuery()) {
                r.next();
                return r.getLong(1);
            }
        }
    }

    static void parameters(Connection c, List<String> want) throws SQLException {
        String[] one = want.get(0).split("\t");
        for (Object v : new Object[] {one[0], OffsetDateTime.parse(one[4]), new BigDecimal(one[3]), LocalDate.parse(one[6]), Long.parseLong(one[2]), Boolean.parseBoolean(one[5])}) {
            String column = v instanceof String ? "event_id" : v instanceof OffsetDateTime ? "event_time" : v instanceof BigDecimal ? "price" : v instanceof LocalDate ? "event_date"
                : v instanceof Long ? "trade_id" : "is_buyer_maker";
            check(count(c, "SELECT count(*) FROM unified_events WHERE event_id = ? AND " + column + " = ?", one[0], v) == 1, column + " = " + v);
        }
        java.sql.Array ids = c.createArrayOf("text", new Object[] {one[0], "nosuch", "with \"quotes\", and a comma"});
        check(count(c, "SELECT count(*) FROM unified_events WHERE event_id = ANY (?)", ids) == 1, "an array as a parameter");
        try (PreparedStatement s = c.prepareStatement("SELECT ?::bigint, ?::text, ?")) {
            s.setNull(1, Types.BIGINT);
            s.setString(2, "");
            s.setString(3, "O'Reilly \\ ñ");
            try (ResultSet r = s.executeQuery()) {
                r.next();
                r.getLong(1);
                check(r.wasNull(), "a null");
                check(r.getString(2).isEmpty(), "an empty text");
                check(r.getString(3).equals("O'Reilly \\ ñ"), r.getString(3));
            }
        }
    }

    static void shapes(Connection c) throws SQLException {
        try (PreparedStatement s = c.prepareStatement("SELECT " + COLUMNS + " FROM unified_events LIMIT 1")) {
            ResultSetMetaData m = s.getMetaData(); // without running it
            check(m.getColumnCount() == 7, "columns " + m.getColumnCount());
            check(m.getColumnType(4) == Types.NUMERIC && m.getPrecision(4) == 18 && m.getScale(4) == 8, "price: " + m.getColumnTypeName(4) + " " + m.getPrecision(4) + "," + m.getScale(4));
            check(m.getColumnType(3) == Types.BIGINT && m.getColumnClassName(3).equals("java.lang.Long"), "trade_id: " + m.getColumnTypeName(3));
            check(m.getColumnType(6) == Types.BIT && m.getColumnClassName(6).equals("java.lang.Boolean"), "is_buyer_maker: " + m.getColumnTypeName(6));
            check(m.getColumnTypeName(5).equals("timestamptz"), "event_time: " + m.getColumnTypeName(5));
            check(m.getColumnType(7) == Types.DATE, "event_date: " + m.getColumnTypeName(7));
        }
        try (Statement s = c.createStatement(ResultSet.TYPE_SCROLL_INSENSITIVE, ResultSet.CONCUR_READ_ONLY);
            ResultSet r = s.executeQuery("SELECT ARRAY['a', 'b c', NULL] AS a, 1.50::numeric(5,2) AS n")) {
            check(r.last() && r.getRow() == 1 && r.first(), "scrolling");
            check(Arrays.equals((Object[]) r.getArray("a").getArray(), new Object[] {"a", "b c", null}), "an array");
            check(r.getBigDecimal("n").equals(new BigDecimal("1.50")), "a decimal");
        }
    }

    static void fails(Connection c, String sql, String state) throws SQLException {
        try (Statement s = c.createStatement()) {
            s.execute(sql);
        } catch (SQLException e) {
            check(state.equals(e.getSQLState()), sql + ": " + e.getSQLState() + " " + e.getMessage());
            return;
        }
        throw new AssertionError(sql + ": no error");
    }

    static void errors(Connection c) throws SQLException {
        fails(c, "SELECT * FROM nosuch", "42P01");
        fails(c, "SELECT nosuch FROM unified_events", "42703");
        fails(c, "DELETE FROM unified_events", "25006");
        c.setAutoCommit(false);
        long before = count(c, "SELECT 1");
        Savepoint p = c.setSavepoint("here");
        fails(c, "SELEC 1", "42601");
        fails(c, "SELECT 1", "25P02");
        c.rollback(p);
        check(count(c, "SELECT 1") == before, "after the savepoint");
        c.rollback();
        c.setAutoCommit(true);
        try (Statement s = c.createStatement()) {
            s.setQueryTimeout(1);
            s.executeQuery("SELECT count(*) FROM range(100000000000) a, range(100000000000) b");
            throw new AssertionError("an endless statement ended");
        } catch (SQLException e) {
            check("57014".equals(e.getSQLState()), "time-out: " + e.getSQLState() + " " + e.getMessage());
        }
    }
}
