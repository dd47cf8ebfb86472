package org.apache.spark.examples;

import java.util.ArrayList;
import java.util.List;
import java.util.Random;

import org.apache.spark.api.java.JavaSparkContext;
import org.apache.spark.sql.SparkSession;

/** Spark's own first example, which PyPI's pyspark does not bring: pi, by throwing darts. */
public final class SparkPi {
  public static void main(String[] args) {
    SparkSession spark = SparkSession.builder().appName("Spark Pi").getOrCreate();
    JavaSparkContext context = new JavaSparkContext(spark.sparkContext());
    int slices = args.length > 0 ? Integer.parseInt(args[0]) : 2;
    List<Integer> seeds = new ArrayList<>();
    for (int seed = 0; seed < slices; seed++) {
      seeds.add(seed);
    }
    int darts = 100_000;
    long inside = context.parallelize(seeds, slices).map(seed -> {
      Random random = new Random(seed);
      long hits = 0;
      for (int dart = 0; dart < darts; dart++) {
        double x = random.nextDouble() * 2 - 1;
        double y = random.nextDouble() * 2 - 1;
        hits += x * x + y * y <= 1 ? 1 : 0;
      }
      return hits;
    }).reduce(Long::sum);
    System.out.println("Pi is roughly " + 4.0 * inside / ((double) darts * slices));
    spark.stop();
  }
}
