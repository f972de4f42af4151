package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/InfluxCommunity/influxdb3-go/v2/influxdb3"
	influxdb2 "github.com/influxdata/influxdb-client-go/v2"
	influxdb2http "github.com/influxdata/influxdb-client-go/v2/api/http"
	questdb "github.com/questdb/go-questdb-client/v4"
)

var lineCases = []namedCase{
	{"questdb_versions", questdbVersions},
	{"questdb_errors", questdbErrors},
	{"questdb_tokens", questdbTokens},
	{"influxdb2", influxDB2},
	{"influxdb2_tokens", influxDB2Tokens},
	{"influxdb3", influxDB3},
	{"influxdb3_tokens", influxDB3Tokens},
}

var start = time.Date(2024, 1, 1, 0, 0, 0, 1, time.UTC)

func questdbVersions() error {
	ctx := context.Background()
	for _, version := range []string{"auto", "1", "2", "3"} {
		configuration := "http::addr=" + httpAddress + ";auto_flush=off;"
		if version != "auto" {
			configuration += "protocol_version=" + version + ";"
		}
		sender, err := questdb.LineSenderFromConf(ctx, configuration)
		if err != nil {
			return err
		}
		for i := range 100 {
			row := sender.Table("go_questdb_"+version).Symbol("city", fmt.Sprint("Oslo, = ", i%3)).Int64Column("n", int64(i)).
				Float64Column("f", float64(i)+0.1).StringColumn("s", fmt.Sprintf("line\nbreak \"%d", i)).BoolColumn("b", i%2 == 0).
				TimestampColumn("seen", start.Add(time.Duration(i)*time.Microsecond))
			if version != "1" {
				row = row.Float64Array2DColumn("a", [][]float64{{float64(i), 0.5}, {1.5, 2.5}})
			}
			if version == "auto" || version == "3" {
				row = row.DecimalColumnFromString("d", "12.345")
			}
			if err := row.At(ctx, start.Add(time.Duration(i))); err != nil {
				return err
			}
		}
		if err := all(sender.Flush(ctx), sender.Close(ctx)); err != nil {
			return fmt.Errorf("version %s: %w", version, err)
		}
	}
	return nil
}

func questdbErrors() error {
	ctx := context.Background()
	sender, err := questdb.LineSenderFromConf(ctx, "http::addr="+httpAddress+";auto_flush=off;")
	if err != nil {
		return err
	}
	defer sender.Close(ctx)
	written := all(sender.Table("go_clash").Int64Column("n", 1).At(ctx, start), sender.Flush(ctx))
	buffered := sender.Table("go_clash").StringColumn("n", "text").At(ctx, start)
	refused := sender.Flush(ctx)
	var told *questdb.HttpError
	if !errors.As(refused, &told) {
		return fmt.Errorf("wanted an HTTP error, got %v", refused)
	}
	return all(written, buffered, failsWith("the column is Int64, the line has a string", refused), equal("status", 400, told.HttpStatus()))
}

func questdbTokens() error {
	ctx := context.Background()
	write := func(secret string) error {
		sender, err := questdb.LineSenderFromConf(ctx, "http::addr="+guardedHTTP+";auto_flush=off;"+secret)
		if err != nil {
			return err
		}
		row := sender.Table("go_questdb_tokens").Int64Column("n", 1).At(ctx, start)
		flushed := sender.Flush(ctx)
		sender.Close(ctx)
		return all(row, flushed)
	}
	return all(write("token="+token+";"), write("username=me;password="+token+";"), failsWith("401", write("")))
}

func influxDB2() error {
	ctx := context.Background()
	client := influxdb2.NewClientWithOptions("http://"+httpAddress, "any", influxdb2.DefaultOptions().SetUseGZip(true))
	defer client.Close()
	up, pinged := client.Ping(ctx)
	health, asked := client.Health(ctx)
	if err := all(pinged, asked, equal("up", true, up), equal("health", "pass", string(health.Status))); err != nil {
		return err
	}
	blocking := client.WriteAPIBlocking("o", "b")
	for i := range 1000 {
		point := influxdb2.NewPoint("go_influxdb2", map[string]string{"city": fmt.Sprint("c ", i%3)},
			map[string]any{"n": i, "f": float64(i) + 0.5, "s": "a \"b\""}, start.Add(time.Duration(i)))
		if i == 0 {
			blocking.EnableBatching()
		}
		if err := blocking.WritePoint(ctx, point); err != nil {
			return err
		}
	}
	if err := blocking.Flush(ctx); err != nil {
		return err
	}
	batching := client.WriteAPI("o", "b")
	batching.WriteRecord("go_influxdb2,city=c\\ 0 n=1000i 1704067300000000000")
	batching.Flush()
	// Of another bucket: that of the first is the one that gathers batches.
	refused := client.WriteAPIBlocking("o", "c").WriteRecord(ctx, "go_influxdb2 n=\"text\" 1")
	var told *influxdb2http.Error
	if !errors.As(refused, &told) {
		return fmt.Errorf("wanted an HTTP error, got %v", refused)
	}
	return all(equal("status", 400, told.StatusCode), failsWith("column \"n\"", refused))
}

func influxDB2Tokens() error {
	write := func(secret string) error {
		client := influxdb2.NewClient("http://"+guardedHTTP, secret)
		defer client.Close()
		return client.WriteAPIBlocking("o", "b").WriteRecord(context.Background(), "go_influxdb2_tokens n=1i 1")
	}
	return all(write(token), failsWith("", write("wrong")))
}

func influxDB3() error {
	ctx := context.Background()
	client, err := influxdb3.New(influxdb3.ClientConfig{Host: "http://" + httpAddress, Token: "any", Database: "d"})
	if err != nil {
		return err
	}
	defer client.Close()
	version, asked := client.GetServerVersion()
	points := make([]*influxdb3.Point, 1000)
	for i := range points {
		points[i] = influxdb3.NewPoint("go_influxdb3", map[string]string{"room": fmt.Sprint("r", i%7)},
			map[string]any{"n": i, "f": float64(i) + 0.5}, start.Add(time.Duration(i)))
	}
	written := all(client.WritePoints(ctx, points), client.Write(ctx, []byte("go_influxdb3,room=r0 n=1000i,f=0.5 1704067300000000000"), influxdb3.WithUseV2Api(false), influxdb3.WithNoSync(true)))
	refused := client.Write(ctx, []byte("go_influxdb3 n=\"text\" 1"))
	var told *influxdb3.ServerError
	if !errors.As(refused, &told) {
		return fmt.Errorf("wanted a server's error, got %v", refused)
	}
	if version == "" {
		return errors.New("no version")
	}
	return all(asked, written, equal("status", 400, told.StatusCode), failsWith("column \"n\"", refused))
}

func influxDB3Tokens() error {
	write := func(secret string) error {
		client, err := influxdb3.New(influxdb3.ClientConfig{Host: "http://" + guardedHTTP, Token: secret, Database: "d"})
		if err != nil {
			return err
		}
		defer client.Close()
		return client.Write(context.Background(), []byte("go_influxdb3_tokens n=1i 1"))
	}
	return all(write(token), failsWith("", write("wrong")))
}

// stream writes rows to the first node that takes them, and says how many were acknowledged.
func stream(addresses []string, count string) error {
	ctx := context.Background()
	rows, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	at := 0
	for i := 0; i < rows; i += 10 {
		var flushed error
		for range 20 {
			sender, err := questdb.LineSenderFromConf(ctx, "http::addr="+addresses[at%len(addresses)]+";auto_flush=off;retry_timeout=500;")
			flushed = err
			for n := i; n < i+10 && flushed == nil; n++ {
				flushed = sender.Table("streamed").Int64Column("n", int64(n)).At(ctx, start.Add(time.Duration(n)*time.Millisecond))
			}
			if flushed == nil {
				flushed = sender.Flush(ctx)
			}
			if sender != nil {
				sender.Close(ctx)
			}
			if flushed == nil {
				break
			}
			at++
			time.Sleep(100 * time.Millisecond)
		}
		if flushed != nil {
			return flushed
		}
		fmt.Println("acknowledged", i+10)
	}
	return nil
}
