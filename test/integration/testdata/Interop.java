import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.internals.BuiltInPartitioner;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * Kafka's own client as the other side of our tests.
 *
 *   partitions N              reads keys from standard input, one a line, prints the partition of each of N
 *   consume BROKERS TOPIC N   prints N records: partition, offset, key, value, headers; bytes in hex, null as "-"
 *   group BROKERS TOPIC N GROUP   the same as a member of a group that goes on where it stands, and commits the N
 */
public class Interop {
    public static void main(String[] args) {
        if (args[0].equals("partitions")) {
            int n = Integer.parseInt(args[1]);
            StringBuilder out = new StringBuilder();
            for (Scanner in = new Scanner(System.in, StandardCharsets.UTF_8); in.hasNextLine(); ) {
                byte[] key = in.nextLine().getBytes(StandardCharsets.UTF_8);
                out.append(BuiltInPartitioner.partitionForKey(key, n)).append('\n');
            }
            System.out.print(out);
            return;
        }
        Properties p = new Properties();
        p.put("bootstrap.servers", args[1]);
        p.put("group.id", args.length > 4 ? args[4] : "java-" + UUID.randomUUID());
        p.put("enable.auto.commit", "false");
        p.put("auto.offset.reset", "earliest");
        p.put("isolation.level", "read_committed");
        if (args[0].equals("group")) {
            p.put("max.poll.records", "1"); // not one record more than asked for
        }
        int want = Integer.parseInt(args[3]);
        long deadline = System.nanoTime() + Duration.ofSeconds(60).toNanos();
        try (var c = new KafkaConsumer<>(p, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            c.subscribe(List.of(args[2]));
            for (int got = 0; got < want; ) {
                if (System.nanoTime() > deadline) {
                    System.err.println("got " + got + " of " + want + " records within a minute");
                    System.exit(1);
                }
                for (ConsumerRecord<byte[], byte[]> r : c.poll(Duration.ofMillis(500))) {
                    got++;
                    StringBuilder line = new StringBuilder();
                    line.append(r.partition()).append(' ').append(r.offset()).append(' ').append(hex(r.key())).append(' ').append(hex(r.value()));
                    for (Header h : r.headers()) {
                        line.append(' ').append(h.key()).append('=').append(hex(h.value()));
                    }
                    System.out.println(line);
                }
            }
            if (args[0].equals("group")) {
                c.commitSync();
            }
        }
    }

    static String hex(byte[] b) {
        return b == null ? "-" : HexFormat.of().formatHex(b);
    }
}
