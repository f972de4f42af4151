package main

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	_ "github.com/apache/arrow-adbc/go/adbc/sqldriver/flightsql"
)

var databaseSQLCases = []namedCase{
	{"database_sql", databaseSQL},
	{"database_sql_transactions", databaseSQLTransactions},
	{"database_sql_pool", databaseSQLPool},
}

func contains(text string, parts ...string) error {
	for _, part := range parts {
		if !strings.Contains(text, part) {
			return fmt.Errorf("no %q in %q", part, text)
		}
	}
	return nil
}

func openSQL() (*sql.DB, error) {
	return sql.Open("flightsql", "uri=grpc://"+flightAddress)
}

func databaseSQL() error {
	db, err := openSQL()
	if err != nil {
		return err
	}
	defer db.Close()
	_, ddl := db.Exec("CREATE TABLE go_sql (ts TIMESTAMP, host VARCHAR, n BIGINT, f DOUBLE, b BOOLEAN, d DATE)")
	done, err := db.Exec("INSERT INTO go_sql VALUES (TIMESTAMP '2024-01-01 00:00:00.000000001', 'a', 1, 0.5, true, DATE '2024-02-29'), (TIMESTAMP '2024-01-02', NULL, NULL, NULL, NULL, NULL)")
	if err != nil {
		return all(ddl, err)
	}
	count, counted := done.RowsAffected()
	var at, day time.Time
	var host sql.NullString
	var n sql.NullInt64
	var f sql.NullFloat64
	var b sql.NullBool
	first := db.QueryRow("SELECT * FROM go_sql ORDER BY ts LIMIT 1").Scan(&at, &host, &n, &f, &b, &day)
	wanted := equal("row", "2024-01-01 00:00:00.000000001 a 1 0.5 true 2024-02-29",
		fmt.Sprint(at.UTC().Format("2006-01-02 15:04:05.999999999"), " ", host.String, " ", n.Int64, " ", f.Float64, " ", b.Bool, " ", day.Format(time.DateOnly)))
	second := db.QueryRow("SELECT host, n FROM go_sql ORDER BY ts DESC LIMIT 1").Scan(&host, &n)
	if host.Valid || n.Valid {
		return fmt.Errorf("null is %v, %v", host, n)
	}
	var found int64
	for _, value := range []int64{1, 2} {
		// Anew for each query: when its rows are closed, this driver closes the statement, too.
		prepared, err := db.Prepare("SELECT count(*) FROM go_sql WHERE n = ? AND host = ? AND f < ? AND b = ?")
		if err != nil {
			return err
		}
		asked := prepared.QueryRow(value, "a", 0.75, true).Scan(&found)
		if err := all(asked, prepared.Close(), equal("found", 2-value, found)); err != nil {
			return err
		}
	}
	insert, err := db.Prepare("INSERT INTO go_sql (ts, n) VALUES (TIMESTAMP '2024-02-01', ?)")
	if err != nil {
		return err
	}
	defer insert.Close()
	for n := range 3 {
		if _, err := insert.Exec(int64(n)); err != nil {
			return err
		}
	}
	return all(ddl, counted, first, wanted, second, equal("count", 2, count))
}

func databaseSQLTransactions() error {
	db, err := openSQL()
	if err != nil {
		return err
	}
	defer db.Close()
	if _, err := db.Exec("CREATE TABLE go_sql_transactions (n BIGINT)"); err != nil {
		return err
	}
	count := func(wanted int) error {
		var n int
		return all(db.QueryRow("SELECT count(*) FROM go_sql_transactions").Scan(&n), equal("count", wanted, n))
	}
	for i, end := range []func(*sql.Tx) error{(*sql.Tx).Rollback, (*sql.Tx).Commit} {
		tx, err := db.BeginTx(context.Background(), nil)
		if err != nil {
			return err
		}
		for range 2 {
			if _, err := tx.Exec("INSERT INTO go_sql_transactions VALUES (1)"); err != nil {
				return err
			}
		}
		if err := all(count(0), end(tx), count(2*i)); err != nil {
			return err
		}
	}
	return nil
}

// Connections of a pool that are used at once: each has a session of its own.
func databaseSQLPool() error {
	db, err := openSQL()
	if err != nil {
		return err
	}
	defer db.Close()
	if _, err := db.Exec("CREATE TABLE go_sql_pool (n BIGINT)"); err != nil {
		return err
	}
	results := make(chan error)
	for i := range 8 {
		go func() {
			tx, err := db.Begin()
			for range 5 {
				if err == nil {
					_, err = tx.Exec(fmt.Sprintf("INSERT INTO go_sql_pool VALUES (%d)", i))
				}
			}
			if err == nil {
				err = tx.Commit()
			}
			results <- err
		}()
	}
	for range 8 {
		if err := <-results; err != nil {
			return err
		}
	}
	var n, distinct int
	return all(db.QueryRow("SELECT count(*), count(DISTINCT n) FROM go_sql_pool").Scan(&n, &distinct), equal("rows", "40 8", fmt.Sprint(n, " ", distinct)))
}
