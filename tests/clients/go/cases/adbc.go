package main

import (
	"context"
	"fmt"

	"github.com/apache/arrow-adbc/go/adbc"
	driver "github.com/apache/arrow-adbc/go/adbc/driver/flightsql"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

var adbcCases = []namedCase{
	{"adbc_statements", adbcStatements},
	{"adbc_parameters", adbcParameters},
	{"adbc_ingest", adbcIngest},
	{"adbc_metadata", adbcMetadata},
	{"adbc_transactions", adbcTransactions},
	{"adbc_errors", adbcErrors},
	{"adbc_tokens", adbcTokens},
}

// connected runs body with a connection of its own.
func connected(address string, options map[string]string, body func(context.Context, adbc.Connection) error) error {
	ctx := context.Background()
	all := map[string]string{adbc.OptionKeyURI: "grpc://" + address}
	for key, value := range options {
		all[key] = value
	}
	database, err := driver.NewDriver(memory.DefaultAllocator).NewDatabase(all)
	if err != nil {
		return err
	}
	defer database.Close()
	connection, err := database.Open(ctx)
	if err != nil {
		return err
	}
	defer connection.Close()
	return body(ctx, connection)
}

// update runs statements that return no rows, and returns the last one's count.
func update(ctx context.Context, connection adbc.Connection, queries ...string) (count int64, err error) {
	for _, query := range queries {
		statement, err := connection.NewStatement()
		if err != nil {
			return 0, err
		}
		if err = statement.SetSqlQuery(query); err == nil {
			count, err = statement.ExecuteUpdate(ctx)
		}
		if closing := statement.Close(); err == nil {
			err = closing
		}
		if err != nil {
			return 0, fmt.Errorf("%s: %w", query, err)
		}
	}
	return count, nil
}

// query returns a result's rows as text, a bound record's parameters being applied first.
func query(ctx context.Context, connection adbc.Connection, sql string, bound arrow.RecordBatch) (string, error) {
	statement, err := connection.NewStatement()
	if err != nil {
		return "", err
	}
	defer statement.Close()
	if err := statement.SetSqlQuery(sql); err != nil {
		return "", err
	}
	if bound != nil {
		if err := statement.Prepare(ctx); err != nil {
			return "", err
		}
		if err := statement.Bind(ctx, bound); err != nil {
			return "", err
		}
	}
	reader, _, err := statement.ExecuteQuery(ctx)
	if err != nil {
		return "", err
	}
	defer reader.Release()
	return rowsOf(reader)
}

func rowsOf(reader array.RecordReader) (string, error) {
	text := ""
	for reader.Next() {
		record := reader.RecordBatch()
		for row := 0; row < int(record.NumRows()); row++ {
			for column := 0; column < int(record.NumCols()); column++ {
				text += record.Column(column).ValueStr(row) + ","
			}
			text += ";"
		}
	}
	return text, reader.Err()
}

func numbers(from, to int64) arrow.RecordBatch {
	schema := arrow.NewSchema([]arrow.Field{{Name: "n", Type: arrow.PrimitiveTypes.Int64, Nullable: true}, {Name: "t", Type: arrow.BinaryTypes.String, Nullable: true}}, nil)
	builder := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer builder.Release()
	for n := from; n < to; n++ {
		builder.Field(0).(*array.Int64Builder).Append(n)
		builder.Field(1).(*array.StringBuilder).Append(fmt.Sprint("t", n))
	}
	return builder.NewRecordBatch()
}

func adbcStatements() error {
	return connected(flightAddress, nil, func(ctx context.Context, connection adbc.Connection) error {
		_, ddl := update(ctx, connection, "CREATE TABLE go_adbc (ts TIMESTAMP, n BIGINT)")
		count, err := update(ctx, connection, "INSERT INTO go_adbc VALUES (TIMESTAMP '2024-01-01 00:00:00', 1), (TIMESTAMP '2024-01-01 00:00:01', 2)")
		rows, asked := query(ctx, connection, "SELECT n, ts FROM go_adbc ORDER BY n", nil)
		return all(ddl, err, asked, equal("count", 2, count), equal("rows", "1,2024-01-01T00:00:00,;2,2024-01-01T00:00:01,;", rows))
	})
}

func adbcParameters() error {
	return connected(flightAddress, nil, func(ctx context.Context, connection adbc.Connection) error {
		_, ddl := update(ctx, connection, "CREATE TABLE go_parameters (n BIGINT, t VARCHAR)")
		statement, err := connection.NewStatement()
		if err != nil {
			return err
		}
		defer statement.Close()
		prepared := all(statement.SetSqlQuery("INSERT INTO go_parameters VALUES (?, ?)"), statement.Prepare(ctx), statement.Bind(ctx, numbers(0, 1000)))
		count, ran := statement.ExecuteUpdate(ctx)
		rows, asked := query(ctx, connection, "SELECT n, t FROM go_parameters WHERE n = ? AND t = ?", numbers(7, 8))
		return all(ddl, prepared, ran, asked, equal("count", 1000, count), equal("rows", "7,t7,;", rows))
	})
}

func adbcIngest() error {
	return connected(flightAddress, nil, func(ctx context.Context, connection adbc.Connection) error {
		for round, mode := range []string{adbc.OptionValueIngestModeCreate, adbc.OptionValueIngestModeAppend, adbc.OptionValueIngestModeCreateAppend} {
			statement, err := connection.NewStatement()
			if err != nil {
				return err
			}
			set := all(statement.SetOption(adbc.OptionKeyIngestTargetTable, "go_ingested"), statement.SetOption(adbc.OptionKeyIngestMode, mode))
			reader, err := array.NewRecordReader(numbers(0, 1).Schema(), []arrow.RecordBatch{numbers(0, 500), numbers(500, 1000)})
			if err != nil {
				return err
			}
			bound := statement.BindStream(ctx, reader)
			count, ran := statement.ExecuteUpdate(ctx)
			rows, asked := query(ctx, connection, "SELECT count(*), sum(n) FROM go_ingested", nil)
			wanted := fmt.Sprintf("%d,%d,;", 1000*(round+1), 499500*(round+1))
			if err := all(set, bound, ran, asked, statement.Close(), equal("count", 1000, count), equal("rows", wanted, rows)); err != nil {
				return fmt.Errorf("%s: %w", mode, err)
			}
		}
		return nil
	})
}

func adbcMetadata() error {
	return connected(flightAddress, nil, func(ctx context.Context, connection adbc.Connection) error {
		_, ddl := update(ctx, connection, "CREATE TABLE go_metadata (ts TIMESTAMP, host VARCHAR, v DOUBLE, PRIMARY KEY (ts, host))")
		schema, err := connection.GetTableSchema(ctx, nil, nil, "go_metadata")
		if err != nil {
			return err
		}
		pattern, public := "go\\_metadata%", "public"
		objects, err := connection.GetObjects(ctx, adbc.ObjectDepthAll, nil, &public, &pattern, nil, nil)
		if err != nil {
			return err
		}
		defer objects.Release()
		found, read := rowsOf(objects)
		types, err := connection.GetTableTypes(ctx)
		if err != nil {
			return err
		}
		defer types.Release()
		kinds, readTypes := rowsOf(types)
		info, err := connection.GetInfo(ctx, []adbc.InfoCode{adbc.InfoVendorName, adbc.InfoVendorVersion})
		if err != nil {
			return err
		}
		defer info.Release()
		vendor, readInfo := rowsOf(info)
		return all(ddl, read, readTypes, readInfo,
			equal("columns", "[ts host v]", fmt.Sprint(names(schema))), equal("nullable", false, schema.Field(0).Nullable),
			contains(found, "go_metadata", "host"), contains(kinds, "TABLE", "VIEW"), contains(vendor, "TandemDB"))
	})
}

func names(schema *arrow.Schema) (names []string) {
	for _, field := range schema.Fields() {
		names = append(names, field.Name)
	}
	return names
}

func adbcTransactions() error {
	return connected(flightAddress, nil, func(ctx context.Context, connection adbc.Connection) error {
		_, ddl := update(ctx, connection, "CREATE TABLE go_transactions (n BIGINT, t VARCHAR)")
		options := connection.(adbc.PostInitOptions)
		off := options.SetOption(adbc.OptionKeyAutoCommit, adbc.OptionValueDisabled)
		_, first := update(ctx, connection, "INSERT INTO go_transactions VALUES (1, 'a')")
		inside, asked := query(ctx, connection, "SELECT count(*) FROM go_transactions", nil)
		back := connection.Rollback(ctx)
		_, second := update(ctx, connection, "INSERT INTO go_transactions VALUES (2, 'b')", "INSERT INTO go_transactions VALUES (3, 'c')")
		done := connection.Commit(ctx)
		on := options.SetOption(adbc.OptionKeyAutoCommit, adbc.OptionValueEnabled)
		rows, askedAgain := query(ctx, connection, "SELECT n, t FROM go_transactions ORDER BY n", nil)
		return all(ddl, off, first, asked, back, second, done, on, askedAgain, equal("inside", "1,;", inside), equal("rows", "2,b,;3,c,;", rows))
	})
}

func adbcErrors() error {
	return connected(flightAddress, nil, func(ctx context.Context, connection adbc.Connection) error {
		for sql, status := range map[string]adbc.Status{
			"SELEC 1":                        adbc.StatusInvalidArgument,
			"SELECT * FROM go_absent":        adbc.StatusNotFound,
			"CREATE SCHEMA public":           adbc.StatusAlreadyExists,
			"SELECT count(*) FROM go_absent": adbc.StatusNotFound,
		} {
			_, err := query(ctx, connection, sql, nil)
			told, is := err.(adbc.Error)
			if !is || told.Code != status {
				return fmt.Errorf("%s: wanted %v, got %v", sql, status, err)
			}
		}
		return nil
	})
}

func adbcTokens() error {
	ask := func(ctx context.Context, connection adbc.Connection) error {
		rows, err := query(ctx, connection, "SELECT 1", nil)
		return all(err, equal("rows", "1,;", rows))
	}
	return all(
		connected(guardedFlight, map[string]string{adbc.OptionKeyUsername: "me", adbc.OptionKeyPassword: token}, ask),
		connected(guardedFlight, map[string]string{driver.OptionAuthorizationHeader: "Bearer " + token}, ask),
		failsWith("nauth", connected(guardedFlight, nil, ask)),
	)
}
