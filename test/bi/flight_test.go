package bi

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/flight"
	fsql "github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	pb "github.com/apache/arrow-go/v18/arrow/flight/gen/flight"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/cauce-data/cauce/internal/loopback"
	"github.com/cauce-data/cauce/internal/prereq"
	"github.com/cauce-data/cauce/test/lab"
)

// serveFlight starts `cauce serve` with both doors and gives the address of Flight SQL.
func serveFlight(t *testing.T, l *lab.Lake) (*server, string) {
	t.Helper()
	addr := loopback.Free(t)
	s := serveLake(t, l, "--flight-listen", addr)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_ = c.Close()
			return s, addr
		}
		if time.Now().After(deadline) {
			t.Fatalf("Flight SQL does not listen: %v", err)
		}
	}
}

// flightClient connects; a nil pool means no encryption.
func flightClient(t *testing.T, addr string, roots *x509.CertPool) *fsql.Client {
	t.Helper()
	creds := insecure.NewCredentials()
	if roots != nil {
		creds = credentials.NewTLS(&tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12})
	}
	c, err := fsql.NewClient(addr, nil, nil, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// flightRows runs a statement and gives its rows as texts.
func flightRows(ctx context.Context, c *fsql.Client, sql string) ([]string, error) {
	info, err := c.Execute(ctx, sql)
	if err != nil {
		return nil, err
	}
	return fetched(ctx, c, info)
}

func fetched(ctx context.Context, c *fsql.Client, info *flight.FlightInfo) ([]string, error) {
	var out []string
	for _, e := range info.Endpoint {
		r, err := c.DoGet(ctx, e.Ticket)
		if err != nil {
			return nil, err
		}
		for r.Next() {
			b := r.RecordBatch()
			for i := range int(b.NumRows()) {
				var cells []string
				for _, col := range b.Columns() {
					cells = append(cells, col.ValueStr(i))
				}
				out = append(out, strings.Join(cells, "|"))
			}
		}
		err = r.Err()
		r.Release()
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// ADBC's driver reads by Flight SQL what a stream writes, and PostgreSQL's door gives the same.
func TestFlightSQL(t *testing.T) {
	l, file := knownHistory(t)
	stop := writeOn(t, l)
	s, addr := serveFlight(t, l)
	waitForEvents(t, s)
	t.Run("ADBC", func(t *testing.T) {
		t.Logf("REPORT: %s", output(t, exec.Command(prereq.Need(t, "venv"), "adbc.py", "flightsql", "grpc://"+addr, file)))
	})
	c := flightClient(t, addr, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	t.Run("a transaction reads one version", func(t *testing.T) {
		tx, err := c.BeginTransaction(ctx)
		if err != nil {
			t.Fatal(err)
		}
		inside := func() string {
			info, err := tx.Execute(ctx, "SELECT count(*) FROM unified_events")
			if err != nil {
				t.Fatal(err)
			}
			rows, err := fetched(ctx, c, info)
			if err != nil || len(rows) != 1 {
				t.Fatalf("%v, %v", rows, err)
			}
			return rows[0]
		}
		before := inside()
		pg := s.connect()
		for deadline := time.Now().Add(time.Minute); one(t, pg, "SELECT count(*)::text FROM unified_events") == before; time.Sleep(100 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the stream writes nothing")
			}
		}
		if now := inside(); now != before {
			t.Errorf("a transaction saw %s rows, then %s", before, now)
		}
		if err := tx.Commit(ctx); err != nil {
			t.Error(err)
		}
		if _, err := tx.Execute(ctx, "SELECT 1"); err == nil {
			t.Error("a transaction that has ended goes on")
		}
	})
	t.Run("time travel and the lake's views", func(t *testing.T) {
		pg := s.connect()
		for _, sql := range []string{
			"SELECT count(*)::text FROM unified_events AT (VERSION => 1)", "SELECT count(*)::text FROM unified_events VERSION AS OF 1 e", "SELECT operation FROM lake.versions WHERE version = 1",
			"SELECT string_agg(column_name, ',' ORDER BY ordinal_position) FROM information_schema.columns WHERE table_name = 'unified_events'",
		} {
			rows, err := flightRows(ctx, c, sql)
			if want := one(t, pg, sql); err != nil || len(rows) != 1 || rows[0] != want {
				t.Errorf("%s: %v, %v; PostgreSQL's door gives %s", sql, rows, err, want)
			}
		}
	})
	t.Run("what the log tells", func(t *testing.T) {
		if rows, err := flightRows(ctx, c, "DESCRIBE DETAIL unified_events"); err != nil || len(rows) != 1 || !strings.HasPrefix(rows[0], "delta|") {
			t.Errorf("%v, %v", rows, err)
		}
		p, err := c.Prepare(ctx, "DESCRIBE HISTORY unified_events LIMIT 1")
		if err != nil {
			t.Fatal(err)
		}
		if d := p.DatasetSchema(); d == nil || d.NumFields() != 15 || d.Field(0).Type.String() != "int64" {
			t.Errorf("columns %v", d)
		}
		if err := p.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Run("prepared", func(t *testing.T) {
		p, err := c.Prepare(ctx, "SELECT event_id, price FROM unified_events WHERE trade_id = $1 AND source = $2")
		if err != nil {
			t.Fatal(err)
		}
		if d := p.DatasetSchema(); d == nil || d.NumFields() != 2 || d.Field(1).Type.String() != "decimal(18, 8)" {
			t.Errorf("columns %v", d)
		}
		if d := p.ParameterSchema(); d == nil || d.NumFields() != 2 || d.Field(0).Type.String() != "int64" {
			t.Errorf("parameters %v", d)
		}
		b := array.NewRecordBuilder(memory.DefaultAllocator, p.ParameterSchema())
		b.Field(0).(*array.Int64Builder).Append(7)
		b.Field(1).(*array.StringBuilder).Append("batch")
		p.SetParameters(b.NewRecordBatch())
		info, err := p.Execute(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if rows, err := fetched(ctx, c, info); err != nil || len(rows) != 1 || rows[0] != "BTCUSDT-7|60006.0007407" {
			t.Errorf("%v, %v", rows, err)
		}
		if err := p.Close(ctx); err != nil {
			t.Error(err)
		}
		if _, err := p.Execute(ctx); err == nil {
			t.Error("a closed statement runs")
		}
	})
	t.Run("parameters", func(t *testing.T) {
		nulls := array.NewNull(1)
		number := array.NewInt64Data(array.NewData(arrow.PrimitiveTypes.Int64, 1, []*memory.Buffer{nil, memory.NewBufferBytes([]byte{7, 0, 0, 0, 0, 0, 0, 0})}, nil, 0, 0))
		bytes := array.NewListBuilder(memory.DefaultAllocator, arrow.BinaryTypes.Binary)
		bytes.Append(true)
		bytes.ValueBuilder().(*array.BinaryBuilder).AppendValues([][]byte{[]byte("ab"), {0xff}, {}}, nil)
		list := bytes.NewArray()
		for _, q := range []struct {
			sql    string
			values []arrow.Array
			want   string
		}{
			{"SELECT (? IS NULL)::text, coalesce(?, 'none'), '?'", []arrow.Array{nulls, nulls}, "true|none|?"},
			{"SELECT coalesce($2, $1)::text", []arrow.Array{number, nulls}, "7"},
			{"SELECT count(*)::text FROM unified_events WHERE trade_id = ? AND symbol = ?", []arrow.Array{number, nulls}, "0"},
			{"SELECT hex(($1::bytea[])[1]), hex(($1::bytea[])[2]), hex(($1::bytea[])[3]), hex($2::bytea)", []arrow.Array{list, list.(*array.List).ListValues()}, "6162|FF||6162"},
			{"SELECT ?::text || $1", []arrow.Array{number}, "SQLSTATE 42P02"},
			{"SELECT ?::text, ?::text", []arrow.Array{number}, "SQLSTATE 08P01"},
			{"SELECT $1::text", []arrow.Array{number, number}, "SQLSTATE 08P01"},
			{"SELECT $1::text", nil, "SQLSTATE 08P01"},
		} {
			got, err := func() ([]string, error) {
				p, err := c.Prepare(ctx, q.sql)
				if err != nil {
					return nil, err
				}
				defer func() { _ = p.Close(ctx) }()
				if q.values != nil {
					fields := make([]arrow.Field, len(q.values))
					for i, v := range q.values {
						fields[i] = arrow.Field{Name: fmt.Sprint(i), Type: v.DataType(), Nullable: true}
					}
					p.SetParameters(array.NewRecordBatch(arrow.NewSchema(fields, nil), q.values, 1))
				}
				info, err := p.Execute(ctx)
				if err != nil {
					return nil, err
				}
				return fetched(ctx, c, info)
			}()
			if err != nil {
				got = []string{err.Error()}
			}
			if len(got) != 1 || got[0] != q.want && (err == nil || !strings.Contains(got[0], q.want)) {
				t.Errorf("%s: %v, want %s", q.sql, got, q.want)
			}
		}
	})
	t.Run("the catalogue", func(t *testing.T) {
		schema := "public"
		for what, call := range map[string]func() (*flight.FlightInfo, error){
			"lake": func() (*flight.FlightInfo, error) { return c.GetCatalogs(ctx) },
			"lake|public": func() (*flight.FlightInfo, error) {
				return c.GetDBSchemas(ctx, &fsql.GetDBSchemasOpts{DbSchemaFilterPattern: new("p%")})
			},
			"lake|public|unified_events|TABLE": func() (*flight.FlightInfo, error) {
				return c.GetTables(ctx, &fsql.GetTablesOpts{TableNameFilterPattern: new("unified\\_%"), TableTypes: []string{"TABLE"}})
			},
			"lake|lake|gaps|VIEW": func() (*flight.FlightInfo, error) {
				return c.GetTables(ctx, &fsql.GetTablesOpts{DbSchemaFilterPattern: new("lake"), TableNameFilterPattern: new("g_ps")})
			},
			"TABLE\nVIEW": func() (*flight.FlightInfo, error) { return c.GetTableTypes(ctx) },
			"lake|public|unified_events|event_id|1|unified_events_pkey": func() (*flight.FlightInfo, error) {
				return c.GetPrimaryKeys(ctx, fsql.TableRef{DBSchema: &schema, Table: "unified_events"})
			},
			"": func() (*flight.FlightInfo, error) {
				return c.GetExportedKeys(ctx, fsql.TableRef{DBSchema: &schema, Table: "unified_events"})
			},
		} {
			info, err := call()
			if err != nil {
				t.Errorf("%s: %v", what, err)
				continue
			}
			if rows, err := fetched(ctx, c, info); err != nil || strings.Join(rows, "\n") != what {
				t.Errorf("%q, %v; want %q", rows, err, what)
			}
		}
		for what, least := range map[string]int{"types": 10, "information": 20} {
			call := func() (*flight.FlightInfo, error) { return c.GetXdbcTypeInfo(ctx, nil) }
			if what == "information" {
				call = func() (*flight.FlightInfo, error) { return c.GetSqlInfo(ctx, nil) }
			}
			info, err := call()
			if err != nil {
				t.Errorf("%s: %v", what, err)
				continue
			}
			if rows, err := fetched(ctx, c, info); err != nil || len(rows) < least {
				t.Errorf("%s: %d rows, %v", what, len(rows), err)
			}
		}
	})
	t.Run("cancel and limits", func(t *testing.T) {
		info, err := c.Execute(ctx, "SELECT i FROM range(3000000) t(i)")
		if err != nil {
			t.Fatal(err)
		}
		if r, err := c.CancelFlightInfo(ctx, &flight.CancelFlightInfoRequest{Info: info}); err != nil || r.Status != flight.CancelStatusCancelled {
			t.Errorf("%v, %v", r, err)
		}
		if _, err := fetched(ctx, c, info); status.Code(err) != codes.NotFound {
			t.Errorf("a cancelled statement: %v", err)
		}
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if _, err := flightRows(short, c, "SELECT count(*) FROM range(100000000000) a, range(100000000000) b"); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("an endless statement: %v", err)
		}
		if rows, err := flightRows(ctx, c, "SELECT i, repeat('x', 20000) FROM range(2000) t(i)"); err != nil || len(rows) != 2000 { // 40 MB, in pieces that clients take
			t.Errorf("%d rows, %v", len(rows), err)
		}
	})
	stop()
}

// messages collects what a writer sends.
type messages []*flight.FlightData

func (m *messages) Send(d *flight.FlightData) error {
	*m = append(*m, proto.Clone(d).(*flight.FlightData))
	return nil
}

// preparedDescriptor is what the parameters of a prepared statement are sent for.
func preparedDescriptor(t *testing.T, p *fsql.PreparedStatement) *flight.FlightDescriptor {
	t.Helper()
	var command anypb.Any
	if err := command.MarshalFrom(&pb.CommandPreparedStatementQuery{PreparedStatementHandle: p.Handle()}); err != nil {
		t.Fatal(err)
	}
	cmd, err := proto.Marshal(&command)
	if err != nil {
		t.Fatal(err)
	}
	return &flight.FlightDescriptor{Type: flight.DescriptorCMD, Cmd: cmd}
}

// What forges, guesses or breaks the protocol of Flight SQL is refused; roles see what the lake file gives them.
func TestFlightSQLRefuses(t *testing.T) {
	l := newLake(t, `roles:
  all: {password: "${env:ALL_PASSWORD}"}
  some: {password: "${env:SOME_PASSWORD}", tables: {unified_events: [event_id, symbol, event_date]}}
serve: {tls: {cert: server.crt, key: server.key}, workers: 2, memory_limit: 128MiB, statement_timeout: 5s}
`, "ALL_PASSWORD=correct horse", "SOME_PASSWORD=battery-staple")
	cert(t, l.Dir)
	s, addr := serveFlight(t, l)
	before := treeHash(t, l.Path("data"))
	pem, err := os.ReadFile(l.Path("server.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		t.Fatal("no certificate")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	c := flightClient(t, addr, roots)
	with := func(value string) context.Context {
		return metadata.AppendToOutgoingContext(ctx, "authorization", value)
	}

	for _, header := range []string{"", "Bearer", "Bearer x", "Bearer " + strings.Repeat("A", 43), "Basic", "Basic !", "Basic YWxs", "Basic YWxsOg==", "Basic YWxsOndyb25n", "Digest x", strings.Repeat("x", 4000)} {
		if _, err := c.Execute(with(header), "SELECT 1"); status.Code(err) != codes.Unauthenticated {
			t.Errorf("header %.20q: %v", header, err)
		}
		stream, err := c.Client.Handshake(with(header))
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != codes.Unauthenticated {
			t.Errorf("handshake with %.20q: %v", header, err)
		}
	}
	for user, password := range map[string]string{"all": "wrong", "ALL": "", "nobody": "correct horse", "some": "correct horse"} {
		if _, err := c.Client.AuthenticateBasicToken(ctx, user, password); status.Code(err) != codes.Unauthenticated {
			t.Errorf("%s with %q: %v", user, password, err)
		}
	}
	plain := flightClient(t, addr, nil)
	if _, err := plain.Execute(ctx, "SELECT 1"); err == nil {
		t.Error("a connection without encryption was answered")
	}
	all, err := c.Client.AuthenticateBasicToken(ctx, "all", "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	some, err := c.Client.AuthenticateBasicToken(ctx, "some", "battery-staple")
	if err != nil {
		t.Fatal(err)
	}
	if rows, err := flightRows(all, c, "SELECT count(*) FROM unified_events WHERE price > 0"); err != nil || fmt.Sprint(rows) != fmt.Sprintf("[%d]", len(l.Rows())) {
		t.Errorf("%v, %v", rows, err)
	}

	t.Run("roles", func(t *testing.T) {
		for sql, want := range map[string]codes.Code{
			"SELECT price FROM unified_events": codes.InvalidArgument, "SELECT * FROM quarantine": codes.PermissionDenied, "SELECT * FROM lake.runs": codes.PermissionDenied,
			"SELECT symbol FROM unified_events": codes.OK,
		} {
			if _, err := flightRows(some, c, sql); status.Code(err) != want {
				t.Errorf("%s: %v, want %v", sql, err, want)
			}
		}
		info, err := c.GetTables(some, &fsql.GetTablesOpts{DbSchemaFilterPattern: new("public"), IncludeSchema: true})
		if err != nil {
			t.Fatal(err)
		}
		r, err := c.DoGet(some, info.Endpoint[0].Ticket)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Release()
		for r.Next() {
			for i := range int(r.RecordBatch().NumRows()) {
				columns, err := flight.DeserializeSchema(r.RecordBatch().Column(4).(*array.Binary).Value(i), memory.DefaultAllocator)
				if err != nil || columns.NumFields() != 3 {
					t.Errorf("%s: %v, %v", r.RecordBatch().Column(2).ValueStr(i), columns, err)
				}
			}
		}
	})
	t.Run("handles of others", func(t *testing.T) {
		info, err := c.Execute(all, "SELECT price FROM unified_events")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fetched(some, c, info); status.Code(err) != codes.NotFound {
			t.Errorf("another role's ticket: %v", err)
		}
		if _, err := fetched(all, c, info); err != nil {
			t.Errorf("the ticket of its own: %v", err)
		}
		if _, err := fetched(all, c, info); status.Code(err) != codes.NotFound {
			t.Errorf("a ticket for the second time: %v", err)
		}
		p, err := c.Prepare(all, "SELECT price FROM unified_events")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Execute(some); status.Code(err) != codes.NotFound {
			t.Errorf("another role's statement: %v", err)
		}
		if _, err := p.Execute(all); err != nil {
			t.Error(err)
		}
		if err := p.Close(some); status.Code(err) != codes.NotFound {
			t.Errorf("another role closes a statement: %v", err)
		}
		tx, err := c.BeginTransaction(all)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Execute(some, "SELECT 1"); status.Code(err) != codes.NotFound {
			t.Errorf("another role's transaction: %v", err)
		}
		for _, ticket := range [][]byte{nil, {0}, []byte("SELECT 1"), make([]byte, 4096)} {
			r, err := c.DoGet(all, &flight.Ticket{Ticket: ticket})
			if err == nil {
				r.Next()
				err = r.Err()
				r.Release()
			}
			if err == nil {
				t.Errorf("ticket %.20q was redeemed", ticket)
			}
		}
		forged, err := fsql.CreateStatementQueryTicket([]byte("0123456789abcdef"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.DoGet(all, &flight.Ticket{Ticket: forged}); status.Code(err) != codes.NotFound {
			t.Errorf("a forged ticket: %v", err)
		}
	})
	t.Run("changes", func(t *testing.T) {
		if _, err := c.ExecuteUpdate(all, "DELETE FROM unified_events"); status.Code(err) != codes.PermissionDenied {
			t.Errorf("an update: %v", err)
		}
		if _, err := c.ExecuteUpdate(all, strings.Repeat("x", 1<<20)); err == nil {
			t.Error("a long update")
		}
	})
	t.Run("statements", func(t *testing.T) {
		var wg sync.WaitGroup
		for part := range 2 {
			wg.Go(func() {
				for i := part; i < len(hostileStatements); i += 2 {
					sql := hostileStatements[i]
					if strings.Contains(sql, "%s") {
						sql = fmt.Sprintf(sql, l.Dir)
					}
					if _, err := flightRows(all, c, strings.ToValidUTF8(sql, "")); err == nil {
						t.Errorf("%q was allowed", sql)
					}
				}
			})
		}
		wg.Wait()
	})
	t.Run("parameters that say they are large", func(t *testing.T) {
		p, err := c.Prepare(all, "SELECT $1::bigint")
		if err != nil {
			t.Fatal(err)
		}
		b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema([]arrow.Field{{Name: "n", Type: arrow.PrimitiveTypes.Int64}}, nil))
		b.Field(0).(*array.Int64Builder).Append(7)
		for _, size := range []uint64{8, 1 << 20, 1 << 34, 1 << 44, 1 << 62} {
			var sent messages
			w := flight.NewRecordWriter(&sent, ipc.WithSchema(b.Schema()), ipc.WithZstd())
			batch := array.NewRecordBatch(b.Schema(), []arrow.Array{array.NewInt64Data(array.NewData(arrow.PrimitiveTypes.Int64, 1, []*memory.Buffer{nil, memory.NewBufferBytes([]byte{7, 0, 0, 0, 0, 0, 0, 0})}, nil, 0, 0))}, 1)
			if err := errors.Join(w.Write(batch), w.Close()); err != nil {
				t.Fatal(err)
			}
			binary.LittleEndian.PutUint64(sent[1].DataBody, size) // of what the values are when they are decompressed
			sent[0].FlightDescriptor = preparedDescriptor(t, p)
			stream, err := c.Client.DoPut(all)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range sent {
				if err := stream.Send(m); err != nil {
					t.Fatal(err)
				}
			}
			_ = stream.CloseSend()
			want := map[uint64]codes.Code{8: codes.OK, 1 << 34: codes.ResourceExhausted, 1 << 44: codes.ResourceExhausted, 1 << 62: codes.ResourceExhausted}
			_, err = stream.Recv()
			if code, known := want[size]; known && status.Code(err) != code || !known && err == nil {
				t.Errorf("values of %d bytes: %v", size, err)
			}
		}
	})
	t.Run("broken messages", func(t *testing.T) {
		raw := c.Client
		for _, kind := range []string{"", "nosuch", fsql.CreatePreparedStatementActionType, fsql.BeginTransactionActionType, fsql.EndTransactionActionType, fsql.CancelQueryActionType, flight.CancelFlightInfoActionType} {
			for _, body := range [][]byte{nil, {0xff}, make([]byte, 1000)} {
				stream, err := raw.DoAction(all, &pb.Action{Type: kind, Body: body})
				if err == nil {
					_, err = stream.Recv()
				}
				if err == nil && kind != fsql.BeginTransactionActionType {
					t.Errorf("action %q with %d bytes was carried out", kind, len(body))
				}
			}
		}
		for _, d := range []*pb.FlightData{{}, {FlightDescriptor: &pb.FlightDescriptor{}}, {DataHeader: make([]byte, 100), DataBody: make([]byte, 100)}, {FlightDescriptor: &pb.FlightDescriptor{Cmd: []byte{1, 2, 3}}, DataHeader: []byte{0xff}}} {
			stream, err := raw.DoPut(all)
			if err != nil {
				t.Fatal(err)
			}
			_ = stream.Send(d) // it may have been refused by then
			_ = stream.CloseSend()
			if _, err := stream.Recv(); err == nil {
				t.Errorf("DoPut of %v was taken", d)
			}
		}
		for _, cmd := range [][]byte{nil, {0xff, 0xff}, make([]byte, 5000)} {
			if _, err := raw.GetFlightInfo(all, &pb.FlightDescriptor{Type: pb.FlightDescriptor_CMD, Cmd: cmd}); err == nil {
				t.Errorf("a command of %d bytes was answered", len(cmd))
			}
		}
		for _, bytes := range []string{"", "GET / HTTP/1.1\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", strings.Repeat("\x00", 100_000)} {
			nc, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			_ = nc.SetDeadline(time.Now().Add(200 * time.Millisecond))
			_, _ = nc.Write([]byte(bytes))
			_, _ = nc.Read(make([]byte, 10))
			_ = nc.Close()
		}
	})
	if rows, err := flightRows(all, c, "SELECT 1"); err != nil || len(rows) != 1 {
		t.Errorf("afterwards: %v, %v", rows, err)
	}
	if treeHash(t, l.Path("data")) != before {
		t.Error("the lake's files have changed")
	}
	if log := s.proc.Stderr.String(); strings.Contains(log, "BUG") {
		i := strings.Index(log, "BUG")
		t.Errorf("the log tells of a bug: %s", log[i:min(len(log), i+1500)])
	}
}
