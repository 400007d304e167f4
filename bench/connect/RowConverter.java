package bench;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.Map;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.kafka.connect.data.Schema;
import org.apache.kafka.connect.data.SchemaAndValue;
import org.apache.kafka.connect.data.SchemaBuilder;
import org.apache.kafka.connect.data.Struct;
import org.apache.kafka.connect.data.Timestamp;
import org.apache.kafka.connect.errors.DataException;
import org.apache.kafka.connect.storage.Converter;

/** Reads the benchmark's framed Avro rows with the schema of its configuration: what a registry's converter does, without the registry. */
public final class RowConverter implements Converter {
  private GenericDatumReader<GenericRecord> reader;
  private BinaryDecoder decoder;
  private Schema schema;

  @Override
  public void configure(Map<String, ?> config, boolean isKey) {
    org.apache.avro.Schema avro = new org.apache.avro.Schema.Parser().parse((String) config.get("avro"));
    reader = new GenericDatumReader<>(avro);
    SchemaBuilder b = SchemaBuilder.struct().name(avro.getFullName());
    for (org.apache.avro.Schema.Field f : avro.getFields()) {
      b.field(f.name(), of(f.schema()));
    }
    schema = b.build();
  }

  private static Schema of(org.apache.avro.Schema s) {
    switch (s.getType()) {
      case LONG: return s.getLogicalType() == null ? Schema.INT64_SCHEMA : Timestamp.SCHEMA;
      case INT: return Schema.INT32_SCHEMA;
      case DOUBLE: return Schema.FLOAT64_SCHEMA;
      case BOOLEAN: return Schema.BOOLEAN_SCHEMA;
      case STRING: return Schema.STRING_SCHEMA;
      default: throw new DataException("no column type for " + s);
    }
  }

  @Override
  public SchemaAndValue toConnectData(String topic, byte[] value) {
    if (value == null) {
      return SchemaAndValue.NULL;
    }
    try {
      decoder = DecoderFactory.get().binaryDecoder(value, 5, value.length - 5, decoder);
      GenericRecord r = reader.read(null, decoder);
      Struct s = new Struct(schema);
      for (org.apache.kafka.connect.data.Field f : schema.fields()) {
        Object v = r.get(f.name());
        if (v instanceof CharSequence) {
          v = v.toString();
        } else if (Timestamp.LOGICAL_NAME.equals(f.schema().name())) {
          v = new java.util.Date((Long) v);
        }
        s.put(f, v);
      }
      return new SchemaAndValue(schema, s);
    } catch (IOException e) {
      throw new DataException("read " + topic, e);
    }
  }

  @Override
  public byte[] fromConnectData(String topic, Schema schema, Object value) {
    throw new DataException("this converter reads");
  }
}
