package main

import (
	"context"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

var flightSQLCases = []namedCase{
	{"flightsql_statements", flightSQLStatements},
	{"flightsql_prepared", flightSQLPrepared},
	{"flightsql_metadata", flightSQLMetadata},
	{"flightsql_transactions", flightSQLTransactions},
	{"flightsql_ingest", flightSQLIngest},
	{"flightsql_cancel", flightSQLCancel},
	{"flightsql_tokens", flightSQLTokens},
}

func dial(address string, body func(context.Context, *flightsql.Client) error) error {
	client, err := flightsql.NewClient(address, nil, nil, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer client.Close()
	return body(context.Background(), client)
}

// read returns the rows behind a FlightInfo as text; it takes what made the info.
func read(ctx context.Context, client *flightsql.Client, info *flight.FlightInfo, err error) (string, error) {
	if err != nil {
		return "", err
	}
	text := ""
	for _, endpoint := range info.Endpoint {
		reader, err := client.DoGet(ctx, endpoint.Ticket)
		if err != nil {
			return "", err
		}
		rows, err := rowsOf(reader)
		reader.Release()
		if err != nil {
			return "", err
		}
		text += rows
	}
	return text, nil
}

func flightSQLStatements() error {
	return dial(flightAddress, func(ctx context.Context, client *flightsql.Client) error {
		_, ddl := client.ExecuteUpdate(ctx, "CREATE TABLE go_flightsql (n BIGINT)")
		count, err := client.ExecuteUpdate(ctx, "INSERT INTO go_flightsql VALUES (1), (2)")
		info, asked := client.Execute(ctx, "SELECT n FROM go_flightsql ORDER BY n")
		rows, got := read(ctx, client, info, asked)
		result, err2 := client.GetExecuteSchema(ctx, "SELECT n FROM go_flightsql")
		if err2 != nil {
			return err2
		}
		schema, err3 := flight.DeserializeSchema(result.GetSchema(), nil)
		_, wrong := client.Execute(ctx, "SELECT * FROM go_absent")
		return all(ddl, err, got, err3, equal("count", 2, count), equal("rows", "1,;2,;", rows), equal("schema", "[n]", fmt.Sprint(names(schema))),
			failsWith("NotFound", wrong))
	})
}

func flightSQLPrepared() error {
	return dial(flightAddress, func(ctx context.Context, client *flightsql.Client) error {
		_, ddl := client.ExecuteUpdate(ctx, "CREATE TABLE go_prepared (n BIGINT, t VARCHAR)")
		insert, err := client.Prepare(ctx, "INSERT INTO go_prepared VALUES (?, ?)")
		if err != nil {
			return err
		}
		isUpdate, told := insert.IsUpdate()
		insert.SetParameters(numbers(0, 100))
		count, ran := insert.ExecuteUpdate(ctx)
		query, err := client.Prepare(ctx, "SELECT n, t FROM go_prepared WHERE n = ? AND t = ?")
		if err != nil {
			return err
		}
		query.SetParameters(numbers(42, 43))
		info, asked := query.Execute(ctx)
		rows, got := read(ctx, client, info, asked)
		return all(ddl, ran, got, insert.Close(ctx), query.Close(ctx), equal("is update", "true true", fmt.Sprint(isUpdate, " ", told)),
			equal("count", 100, count), equal("parameters", 2, query.ParameterSchema().NumFields()),
			equal("dataset", "[n t]", fmt.Sprint(names(query.DatasetSchema()))), equal("rows", "42,t42,;", rows))
	})
}

func flightSQLMetadata() error {
	return dial(flightAddress, func(ctx context.Context, client *flightsql.Client) error {
		_, ddl := client.ExecuteUpdate(ctx, "CREATE TABLE go_flightsql_metadata (ts TIMESTAMP, host VARCHAR, PRIMARY KEY (ts, host))")
		pattern, public := "go\\_flightsql\\_meta%", "public"
		options := &flightsql.GetTablesOpts{DbSchemaFilterPattern: &public, TableNameFilterPattern: &pattern, TableTypes: []string{"TABLE"}, IncludeSchema: true}
		info, err := client.GetTables(ctx, options)
		tables, asked := read(ctx, client, info, err)
		info, err = client.GetPrimaryKeys(ctx, flightsql.TableRef{Table: "go_flightsql_metadata"})
		keys, askedKeys := read(ctx, client, info, err)
		info, err = client.GetDBSchemas(ctx, &flightsql.GetDBSchemasOpts{DbSchemaFilterPattern: &public})
		schemas, askedSchemas := read(ctx, client, info, err)
		info, err = client.GetXdbcTypeInfo(ctx, nil)
		types, askedTypes := read(ctx, client, info, err)
		info, err = client.GetSqlInfo(ctx, []flightsql.SqlInfo{flightsql.SqlInfoFlightSqlServerName})
		server, askedServer := read(ctx, client, info, err)
		return all(ddl, asked, askedKeys, askedSchemas, askedTypes, askedServer, contains(tables, "go_flightsql_metadata,TABLE"),
			contains(keys, ",ts,1,", ",host,2,"), contains(schemas, ",public,;"), contains(types, "TIMESTAMP", "DECIMAL"), contains(server, "TandemDB"))
	})
}

func flightSQLTransactions() error {
	return dial(flightAddress, func(ctx context.Context, client *flightsql.Client) error {
		_, ddl := client.ExecuteUpdate(ctx, "CREATE TABLE go_flightsql_tx (n BIGINT, t VARCHAR)")
		tx, err := client.BeginTransaction(ctx)
		if err != nil {
			return err
		}
		_, first := tx.ExecuteUpdate(ctx, "INSERT INTO go_flightsql_tx VALUES (1, 'a')")
		savepoint, saved := tx.BeginSavepoint(ctx, "here")
		_, second := tx.ExecuteUpdate(ctx, "INSERT INTO go_flightsql_tx VALUES (2, 'b')")
		back := tx.RollbackSavepoint(ctx, savepoint)
		info, err := client.Execute(ctx, "SELECT count(*) FROM go_flightsql_tx")
		outside, asked := read(ctx, client, info, err)
		done := tx.Commit(ctx)
		info, err = client.Execute(ctx, "SELECT n FROM go_flightsql_tx")
		after, askedAfter := read(ctx, client, info, err)
		return all(ddl, first, saved, second, back, asked, done, askedAfter, equal("outside", "0,;", outside), equal("after", "1,;", after))
	})
}

func flightSQLIngest() error {
	return dial(flightAddress, func(ctx context.Context, client *flightsql.Client) error {
		reader, err := array.NewRecordReader(numbers(0, 1).Schema(), []arrow.RecordBatch{numbers(0, 500), numbers(500, 1000)})
		if err != nil {
			return err
		}
		count, ran := client.ExecuteIngest(ctx, reader, &flightsql.ExecuteIngestOpts{
			Table: "go_flightsql_ingest",
			TableDefinitionOptions: &flightsql.TableDefinitionOptions{
				IfNotExist: flightsql.TableDefinitionOptionsTableNotExistOptionCreate,
				IfExists:   flightsql.TableDefinitionOptionsTableExistsOptionFail,
			},
		})
		info, err := client.Execute(ctx, "SELECT count(*), sum(n) FROM go_flightsql_ingest")
		rows, asked := read(ctx, client, info, err)
		return all(ran, asked, equal("count", 1000, count), equal("rows", "1000,499500,;", rows))
	})
}

func flightSQLCancel() error {
	return dial(flightAddress, func(ctx context.Context, client *flightsql.Client) error {
		info, err := client.Execute(ctx, "SELECT value FROM generate_series(1, 100000000000)")
		if err != nil {
			return err
		}
		reader, err := client.DoGet(ctx, info.Endpoint[0].Ticket)
		if err != nil {
			return err
		}
		defer reader.Release()
		reader.Next()
		result, cancelled := client.CancelFlightInfo(ctx, &flight.CancelFlightInfoRequest{Info: info})
		if cancelled != nil {
			return cancelled
		}
		for reader.Next() {
		}
		return all(equal("status", flight.CancelStatusCancelled, result.GetStatus()), failsWith("ancel", reader.Err()))
	})
}

func flightSQLTokens() error {
	return dial(guardedFlight, func(ctx context.Context, client *flightsql.Client) error {
		_, unknown := client.Execute(ctx, "SELECT 1")
		known, err := client.Client.AuthenticateBasicToken(ctx, "me", token)
		if err != nil {
			return err
		}
		for _, shown := range []context.Context{known, metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)} {
			info, err := client.Execute(shown, "SELECT 1")
			rows, asked := read(shown, client, info, err)
			if err := all(asked, equal("rows", "1,;", rows)); err != nil {
				return err
			}
		}
		return failsWith("Unauthenticated", unknown)
	})
}
